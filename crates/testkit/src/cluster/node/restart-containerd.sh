#!/bin/sh
# Restarts this node's containerd and waits until it answers; fails where it does not come back within 30 s.
exec /usr/local/sbin/node-service restart containerd
