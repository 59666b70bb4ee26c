#!/bin/sh
# Takes the run host off this machine: ends its engine with all containers, and removes what it has in the folder.
# Run as root.
set -u
NAME=@NAME@
FOLDER=@FOLDER@
UNIT="anomed-host-$NAME"

[ -f "$FOLDER/start-engine" ] || { echo "There is no run host in $FOLDER."; exit 0; }
if [ -d /run/systemd/system ]; then
    systemctl disable --quiet --now "$UNIT.service" "$UNIT-containerd.service"
    rm -f "/etc/systemd/system/$UNIT.service" "/etc/systemd/system/$UNIT-containerd.service"
    systemctl daemon-reload
fi
# the engine, containerd, keepers of containers, and containers themselves; the pattern is no argument, or grep found itself
ours() {
    {
        printf '%s\n' "$FOLDER/run/" "$FOLDER/containerd.toml" "$FOLDER/daemon.json" |
            grep -lsaF -f - /proc/[0-9]*/cmdline
        grep -lsE " / / .*upperdir=$FOLDER/" /proc/[0-9]*/mountinfo
    } | cut -d / -f 3 | sort -u
}
tries=0
for process in $(ours); do kill "$process" 2>/dev/null; done
while [ -n "$(ours)" ]; do
    tries=$((tries + 1))
    [ "$tries" -le 40 ] || { echo "Something goes on running from $FOLDER." >&2; exit 1; }
    [ "$tries" -le 10 ] || for process in $(ours); do kill -KILL "$process" 2>/dev/null; done
    sleep 0.5
done
awk -v folder="$FOLDER/" 'index($2, folder) == 1 { print $2 }' /proc/mounts | sort -r | while read -r mount; do
    umount -l "$mount"
done
cd "$FOLDER" || exit 1
rm -rf certificates run containerd data daemon.json containerd.toml start-containerd start-engine leave log
cd /
rmdir "$FOLDER" 2>/dev/null || echo "The folder $FOLDER stays: it is a mount, or something else is in it."
echo "The run host $NAME has left this machine."
