#!/bin/bash
# Acts on containerd, kubelet or kube-proxy of this node, as systemctl does where there is systemd. To be called on the node, or by a Pod
# with `hostPID` that has changed its root to the node's.
#
# start, and the second half of restart, wait until the service answers, and fail with the end of its log where
# it does not within 30 s or ends at once five times.
# Usage: node-service start|stop|restart|kill9 containerd|kubelet|kube-proxy
set -euo pipefail
# shellcheck source=/dev/null
. /run/node/env
action=$1
name=$2
hold=/run/node/$name.hold

running() { cat "/run/node/$name.pid" 2>/dev/null || true; }

answers() {
  case $name in
    containerd) ctr --timeout 5s version ;;
    kubelet) : <"/dev/tcp/127.0.0.1/10248" ;;
    kube-proxy) : <"/dev/tcp/$NODE_IP/10256" ;;
  esac >/dev/null 2>&1
}

# end SIGNAL: until that process has gone. SIGKILL after 10 s.
end() {
  local pid deadline=$((SECONDS + 10))
  pid=$(running)
  [[ -n $pid ]] || return 0
  kill -s "$1" "$pid" 2>/dev/null || true
  while [[ $(running) == "$pid" ]]; do
    ((SECONDS < deadline)) || kill -s KILL "$pid" 2>/dev/null || true
    sleep 0.05
  done
}

begin() {
  local deadline=$((SECONDS + 30)) pid last='' starts=0
  rm -f "$hold"
  while :; do
    pid=$(running)
    if [[ -n $pid && $pid != "$last" ]]; then
      last=$pid starts=$((starts + 1))
    fi
    [[ -z $pid ]] || ! answers || return 0
    # As systemd has it: what ends five times at once is not waited for.
    if ((SECONDS >= deadline || starts > 5)); then
      printf '%s does not come back\n' "$name" >&2
      tail -n 20 "$NODE_DIR/$name.log" >&2
      return 1
    fi
    sleep 0.05
  done
}

case $action in
  start) begin ;;
  stop)
    touch "$hold"
    end TERM
    ;;
  restart)
    touch "$hold"
    end TERM
    begin
    ;;
  kill9)
    end KILL
    ;;
  *)
    printf 'node-service: no action %s\n' "$action" >&2
    exit 2
    ;;
esac
