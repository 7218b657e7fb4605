#!/bin/bash
# Process 1 of a node of the test cluster: makes the node's view of the machine, its network, and keeps containerd and kubelet running.
#
# Started in mount, process, network and host name namespaces of its own: all that happens here ends with this process.
# Usage: init.sh FOLDER
set -euo pipefail
dir=$1
# shellcheck source=/dev/null
. "$dir/run/node/env"

hierarchies() {
  local hierarchy
  for hierarchy in /sys/fs/cgroup /sys/fs/cgroup/*; do
    if [[ -L $hierarchy || ! -e $hierarchy/cgroup.procs ]] || ! mountpoint -q "$hierarchy"; then continue; fi
    printf '%s\n' "$hierarchy"
  done
}

# One cgroup, in each hierarchy, holds all of the node, which takes it for the root. So the node's can be found again.
if [[ -z ${NODE_HAS_CGROUP:-} ]]; then
  mount -t proc proc /proc
  for hierarchy in $(hierarchies); do
    group=$hierarchy/$NODE_CGROUP
    mkdir -p "$group"
    for name in cpuset.cpus cpuset.mems; do
      [[ ! -e $group/$name || ! -e $group/tasks ]] || cat "$hierarchy/$name" >"$group/$name"
    done
    echo $$ >"$group/cgroup.procs"
  done
  NODE_HAS_CGROUP=yes exec unshare --cgroup bash "$0" "$dir"
fi
unset NODE_HAS_CGROUP
for hierarchy in $(hierarchies); do
  mount --bind "$hierarchy/$NODE_CGROUP" "$hierarchy"
  if [[ -e $hierarchy/cgroup.controllers ]]; then
    # There, a cgroup with processes of its own cannot limit those below.
    mkdir "$hierarchy/node"
    echo $$ >"$hierarchy/node/cgroup.procs"
  fi
done

hostname "$NODE_NAME"
# What other tests have mounted must not be held here when they are done with it.
while read -r _ _ _ _ point _; do
  case $point in
    "${dir%/*/*}"/* | /tmp/* | /var/tmp/*) [[ $dir/ == "$point"/* ]] || umount --lazy "$point" 2>/dev/null || true ;;
  esac
done < <(tac /proc/self/mountinfo)
# The node sees the machine's files; what it changes below these stays in its own folder.
for place in /etc /opt /usr/local; do
  [[ -d $place ]] || continue
  mkdir -p "$dir/changed$place" "$dir/work$place"
  mount -t overlay -o "lowerdir=$place,upperdir=$dir/changed$place,workdir=$dir/work$place" overlay "$place"
done
# Plain folders: snapshotters make overlays in them, and their sockets are reached from outside.
mount --bind "$dir/var/lib" /var/lib
mount --bind "$dir/var/log" /var/log
mount --bind "$dir/run" /run
mkdir -p /etc/containerd /etc/cni/net.d /opt/cni/bin /usr/local/sbin
mount --bind "$dir/containerd" /etc/containerd
cp "$dir/files/pods.conflist" /etc/cni/net.d/
ln -sf "$CNI"/* /opt/cni/bin/
install -m 755 "$dir/files/service.sh" /usr/local/sbin/node-service
install -m 755 "$dir/files/restart-containerd.sh" /usr/local/sbin/restart-containerd

# kubelet sets these for the whole machine where they are not so yet. Here it finds that they are.
mkdir "$dir/sysctl"
while read -r name value; do
  [[ -e /proc/sys/$name ]] || continue
  printf '%s\n' "$value" >"$dir/sysctl/${name//\//.}"
  mount --bind "$dir/sysctl/${name//\//.}" "/proc/sys/$name"
done <<'SYSCTL'
vm/overcommit_memory 1
vm/panic_on_oom 0
kernel/panic 10
kernel/panic_on_oops 1
kernel/keys/root_maxkeys 1000000
kernel/keys/root_maxbytes 25000000
SYSCTL
# As systemd has it: a Pod's mounts reach the node where the Pod asks for that.
mount --make-rshared /

ip link set lo up
until ip link show eth0 >/dev/null 2>&1; do sleep 0.02; done
ip address add "$NODE_IP/24" dev eth0
ip link set eth0 up
ip route add default via "$NODE_GATEWAY"
for route in $NODE_ROUTES; do
  ip route add "${route%@*}" via "${route#*@}"
done
echo 1 >/proc/sys/net/ipv4/ip_forward

# supervise NAME COMMAND...: runs the command again whenever it ends, except while NAME.hold is there.
supervise() {
  local name=$1 pid
  shift
  while :; do
    if [[ -e /run/node/$name.hold ]]; then
      sleep 0.05
      continue
    fi
    "$@" >>"$dir/$name.log" 2>&1 &
    pid=$!
    printf '%s\n' "$pid" >"/run/node/$name.pid.new"
    mv "/run/node/$name.pid.new" "/run/node/$name.pid"
    wait "$pid" || true
    rm -f "/run/node/$name.pid"
    sleep 0.1
  done
}

supervise containerd containerd &
supervise kubelet kubelet --config="$dir/files/kubelet.yaml" --kubeconfig="$KUBELET_KUBECONFIG" \
  --hostname-override="$NODE_NAME" --node-ip="$NODE_IP" &
[[ ! -e $dir/files/kube-proxy.yaml ]] ||
  supervise kube-proxy kube-proxy --config="$dir/files/kube-proxy.yaml" --hostname-override="$NODE_NAME" &
touch /run/node/ready
# Takes up the orphans too, shims among them.
while :; do wait; done
