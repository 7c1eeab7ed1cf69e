#!/usr/bin/env bash
# What comes before sshd and the engine, whatever starts them.
set -u

# Outside --privileged these are read-only until somebody says otherwise.
mount -o remount,rw /sys 2>/dev/null || true
mount -o remount,rw /proc/sys 2>/dev/null || true

mkdir -p /run/sshd
# They arrive owned by whoever made the box, and sshd trusts no such file.
chown -R root:root /root/.ssh /etc/ssh
chown -R deploy:deploy /home/deploy/.ssh
