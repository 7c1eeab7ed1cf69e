#!/usr/bin/env bash
# The box's first process: brings sshd and the Docker engine up and keeps them up.
set -u

# On cgroup v2, in a cgroup namespace of our own, no process may stay in the root group
# once its controllers are handed down. In the host's namespace this would move the
# host's processes, hence the question.
if [[ -f /sys/fs/cgroup/cgroup.controllers && "$(cat /proc/self/cgroup)" == "0::/" ]]; then
    mkdir -p /sys/fs/cgroup/init
    xargs -rn1 < /sys/fs/cgroup/cgroup.procs > /sys/fs/cgroup/init/cgroup.procs 2>/dev/null || true
    sed -e 's/ / +/g' -e 's/^/+/' < /sys/fs/cgroup/cgroup.controllers \
        > /sys/fs/cgroup/cgroup.subtree_control 2>/dev/null || true
fi

box-prepare

stopping=''
engine=''
server=''

stop() {
    stopping=yes
    [[ -n "$engine" ]] && kill -TERM "$engine" 2>/dev/null
    [[ -n "$server" ]] && kill -TERM "$server" 2>/dev/null
}
trap stop TERM INT

start_engine() {
    # Left by an engine that was killed, they would keep the next one from starting.
    rm -f /run/docker.pid /run/docker/containerd/containerd.pid
    dockerd &
    engine=$!
}

start_server() {
    /usr/sbin/sshd -D -e &
    server=$!
}

start_server
start_engine
while [[ -z "$stopping" ]]; do
    wait -n
    [[ -n "$stopping" ]] && break
    if ! kill -0 "$engine" 2>/dev/null; then
        echo "box-init: the Docker engine ended, starting it again"
        sleep 1 # an engine that cannot start must not be started a thousand times
        start_engine
    fi
    if ! kill -0 "$server" 2>/dev/null; then
        echo "box-init: sshd ended, starting it again"
        sleep 1
        start_server
    fi
done
wait "$engine"
