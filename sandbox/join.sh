#!/bin/sh
# Makes this machine a run host of AnoMed Arena: starts a Docker Engine of its own, beside any that is here already, which
# answers only at one address and only to the arena's certificate. Run as root. Keep this text secret: it has a key.
# Run again, it renews the certificates and restarts the engine; what the engine runs meanwhile goes on.
set -eu
umask 077
NAME=@NAME@
ADDRESS=@ADDRESS@
FOLDER=@FOLDER@
UNIT="anomed-host-$NAME"

fail() { echo "$1" >&2; exit 1; }
[ "$(id -u)" = 0 ] || fail "This must run as root."
for program in dockerd containerd; do
    command -v "$program" >/dev/null || fail "There is no $program. Install Docker Engine 20.10 or newer first."
done
# leaving removes what is there
if [ ! -f "$FOLDER/certificates/ca.pem" ] && ls -A "$FOLDER" 2>/dev/null | grep -qvx lost+found; then
    fail "There is something else in $FOLDER already. Take an empty folder, or one that is not there yet."
fi

mkdir -p "$FOLDER/certificates" "$FOLDER/run"
cat > "$FOLDER/certificates/ca.pem" <<'END'
@AUTHORITY@
END
cat > "$FOLDER/certificates/cert.pem" <<'END'
@CERTIFICATE@
END
cat > "$FOLDER/certificates/key.pem" <<'END'
@KEY@
END
chmod 600 "$FOLDER"/certificates/*.pem

# what the operator of this machine wants to add (runtimes, userns-remap) goes here, and stays
[ -e "$FOLDER/daemon.json" ] || echo '{}' > "$FOLDER/daemon.json"
cat > "$FOLDER/containerd.toml" <<END
version = 2
root = "$FOLDER/containerd"
state = "$FOLDER/run/containerd"
disabled_plugins = ["io.containerd.grpc.v1.cri"]
[grpc]
  address = "$FOLDER/run/containerd.sock"
END
cat > "$FOLDER/start-containerd" <<END
#!/bin/sh
umask 022  # mount points in containers are made with it, and must be passable for nobody
exec containerd --config "$FOLDER/containerd.toml"
END
cat > "$FOLDER/start-engine" <<END
#!/bin/sh
umask 022
exec dockerd --config-file="$FOLDER/daemon.json" --host="tcp://$ADDRESS" --tlsverify \\
    --tlscacert="$FOLDER/certificates/ca.pem" --tlscert="$FOLDER/certificates/cert.pem" \\
    --tlskey="$FOLDER/certificates/key.pem" --data-root="$FOLDER/data" --exec-root="$FOLDER/run/engine" \\
    --pidfile="$FOLDER/run/engine.pid" --containerd="$FOLDER/run/containerd.sock" --storage-driver=overlay2 \\
    --bridge=none --iptables=false --ip6tables=false --ip-forward=false --ip-masq=false @RESTORE@
END
cat > "$FOLDER/leave" <<'END'
@LEAVE@
END
chmod 700 "$FOLDER/start-containerd" "$FOLDER/start-engine" "$FOLDER/leave"

if [ -d /run/systemd/system ]; then
    cat > "/etc/systemd/system/$UNIT-containerd.service" <<END
[Unit]
Description=containerd for the run host $NAME of AnoMed Arena
[Service]
ExecStart=$FOLDER/start-containerd
KillMode=process
Delegate=yes
Restart=always
LimitNOFILE=1048576
TasksMax=infinity
OOMScoreAdjust=-999
[Install]
WantedBy=multi-user.target
END
    cat > "/etc/systemd/system/$UNIT.service" <<END
[Unit]
Description=Docker Engine for the run host $NAME of AnoMed Arena
Wants=network-online.target
After=network-online.target $UNIT-containerd.service
Requires=$UNIT-containerd.service
[Service]
ExecStart=$FOLDER/start-engine
KillMode=process
Delegate=yes
Restart=always
RestartSec=2
LimitNOFILE=1048576
TasksMax=infinity
OOMScoreAdjust=-500
[Install]
WantedBy=multi-user.target
END
    systemctl daemon-reload
    systemctl enable --quiet "$UNIT-containerd.service" "$UNIT.service"
    systemctl start "$UNIT-containerd.service"
    systemctl restart "$UNIT.service"
    echo "The engine of $NAME starts as the service $UNIT."
    exit 0
fi

# without systemd: two processes that outlive this script, but not the machine
alive() { [ -s "$1" ] && kill -0 "$(cat "$1")" 2>/dev/null; }
if ! alive "$FOLDER/run/containerd.pid"; then
    rm -f "$FOLDER/run/containerd.sock"
    setsid "$FOLDER/start-containerd" </dev/null >>"$FOLDER/log" 2>&1 &
    echo $! > "$FOLDER/run/containerd.pid"
fi
tries=0
until [ -S "$FOLDER/run/containerd.sock" ]; do
    tries=$((tries + 1))
    [ "$tries" -le 60 ] || fail "containerd does not start; see $FOLDER/log: $(tail -n 3 "$FOLDER/log")"
    sleep 0.5
done
if alive "$FOLDER/run/engine.pid"; then
    old=$(cat "$FOLDER/run/engine.pid")
    kill "$old"
    while kill -0 "$old" 2>/dev/null; do sleep 0.2; done
fi
setsid "$FOLDER/start-engine" </dev/null >>"$FOLDER/log" 2>&1 &
engine=$!
tries=0
until alive "$FOLDER/run/engine.pid"; do
    tries=$((tries + 1))
    kill -0 "$engine" 2>/dev/null || fail "The engine does not start; see $FOLDER/log: $(tail -n 3 "$FOLDER/log")"
    [ "$tries" -le 60 ] || fail "The engine does not start within 30 seconds; see $FOLDER/log."
    sleep 0.5
done
echo "The engine of $NAME starts; its log is $FOLDER/log."
