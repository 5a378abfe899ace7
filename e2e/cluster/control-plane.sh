#!/usr/bin/env bash
# A real Kubernetes control plane on this machine's loopback, in one directory.
#
#   control-plane.sh up DIR [PART…]      parts: etcd apiserver controller-manager
#                                        scheduler (default: all four)
#   control-plane.sh down DIR            ends exactly what up started
#   control-plane.sh stop DIR PART       one part, for stories of its absence
#   control-plane.sh kill DIR PART       the same without its knowing (SIGKILL)
#   control-plane.sh start DIR PART
#   control-plane.sh etcd-through DIR PORT
#                                        from now on the API server reaches etcd at 127.0.0.1:PORT
#                                        (whoever listens there relays to ETCD_PORT); restarts it
#   control-plane.sh credentials DIR COMMON_NAME ORGANISATION SERVER FILE
#                                        a kubeconfig for a client certificate
#   control-plane.sh name DIR HOST ADDRESS
#                                        how the API server finds a kubelet
#
# Left in DIR: kubeconfig (cluster-admin), pki/ca.crt, control-plane.env
# (API_PORT, API_URL, GUEST_API_URL, ETCD_PORT), logs/, run/. See e2e/README.md.
set -euo pipefail
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
# shellcheck source=process.sh
. "$here/process.sh"
tool="$here/../setup/tool.sh"

# Where guests reach this machine's loopback (guest.sh).
GUEST_VIEW_OF_HOST=10.0.2.2
SERVICE_CIDR=10.96.0.0/16

certificate_authority() {
    local pki="$1"
    openssl ecparam -name prime256v1 -genkey -noout -out "$pki/ca.key"
    openssl req -x509 -new -key "$pki/ca.key" -days 3650 -subj "/CN=lab-ca" -out "$pki/ca.crt" \
        -addext "basicConstraints=critical,CA:TRUE" -addext "keyUsage=critical,keyCertSign,cRLSign"
    openssl genrsa -out "$pki/service-account.key" 2048
    openssl rsa -in "$pki/service-account.key" -pubout -out "$pki/service-account.pub"
}

# sign PKI NAME SUBJECT EXTENSIONS: key and certificate NAME, signed by the CA.
sign() {
    local pki="$1" name="$2" subject="$3" extensions="$4"
    openssl ecparam -name prime256v1 -genkey -noout -out "$pki/$name.key"
    openssl req -new -key "$pki/$name.key" -subj "$subject" -out "$pki/$name.csr"
    openssl x509 -req -in "$pki/$name.csr" -CA "$pki/ca.crt" -CAkey "$pki/ca.key" \
        -set_serial "0x$(openssl rand -hex 12)" -days 3650 -out "$pki/$name.crt" \
        -extfile <(printf '%s\n' "$extensions")
    rm -f "$pki/$name.csr"
}

credentials() {
    local dir="$1" common_name="$2" organisation="$3" server="$4" file="$5"
    local pki="$dir/pki" name="${2//[^a-zA-Z0-9-]/-}"
    sign "$pki" "$name" "/O=$organisation/CN=$common_name" "extendedKeyUsage=clientAuth" \
        2>>"$dir/logs/pki.log"
    (
        umask 077
        cat >"$file" <<Y
apiVersion: v1
kind: Config
clusters:
- name: lab
  cluster:
    server: $server
    certificate-authority-data: $(base64 -w0 <"$pki/ca.crt")
users:
- name: lab
  user:
    client-certificate-data: $(base64 -w0 <"$pki/$name.crt")
    client-key-data: $(base64 -w0 <"$pki/$name.key")
contexts:
- name: lab
  context: {cluster: lab, user: lab}
current-context: lab
Y
    )
}

start_part() {
    local dir="$1" part="$2"
    # shellcheck source=/dev/null
    . "$dir/control-plane.env"
    running "$dir" "$part" && return 0
    case "$part" in
    etcd)
        # The lab's data may be lost with the machine: no fsync.
        launch "$dir" etcd "$("$tool" etcd)" --data-dir "$dir/etcd" \
            --listen-client-urls "http://127.0.0.1:$ETCD_PORT" --advertise-client-urls "http://127.0.0.1:$ETCD_PORT" \
            --listen-peer-urls "http://127.0.0.1:$ETCD_PEER_PORT" --initial-advertise-peer-urls "http://127.0.0.1:$ETCD_PEER_PORT" \
            --initial-cluster "default=http://127.0.0.1:$ETCD_PEER_PORT" ${ETCD_FLAGS:+"$ETCD_FLAGS"}
        ;;
    apiserver)
        # A private /etc/hosts tells this one process where the kubelets are.
        # shellcheck disable=SC2016  # expanded by the inner shell
        launch "$dir" apiserver unshare --mount bash -c 'mount --bind "$0" /etc/hosts && exec "$@"' "$dir/hosts" \
            "$("$tool" kube-apiserver)" \
            --etcd-servers="http://127.0.0.1:${ETCD_RELAY_PORT:-$ETCD_PORT}" \
            --bind-address=127.0.0.1 --secure-port="$API_PORT" --advertise-address="$GUEST_VIEW_OF_HOST" \
            --tls-cert-file="$dir/pki/apiserver.crt" --tls-private-key-file="$dir/pki/apiserver.key" \
            --client-ca-file="$dir/pki/ca.crt" \
            --kubelet-client-certificate="$dir/pki/apiserver-kubelet-client.crt" \
            --kubelet-client-key="$dir/pki/apiserver-kubelet-client.key" \
            --kubelet-preferred-address-types=Hostname \
            --service-account-issuer=https://kubernetes.default.svc \
            --service-account-key-file="$dir/pki/service-account.pub" \
            --service-account-signing-key-file="$dir/pki/service-account.key" \
            --service-cluster-ip-range="$SERVICE_CIDR" \
            --authorization-mode=Node,RBAC --enable-admission-plugins=NodeRestriction \
            --allow-privileged=true --profiling=false
        ;;
    controller-manager)
        launch "$dir" controller-manager "$("$tool" kube-controller-manager)" \
            --kubeconfig="$dir/controller-manager.kubeconfig" --bind-address=127.0.0.1 --secure-port=0 \
            --service-account-private-key-file="$dir/pki/service-account.key" --root-ca-file="$dir/pki/ca.crt" \
            --use-service-account-credentials=true --leader-elect=false \
            --allocate-node-cidrs=false
        ;;
    scheduler)
        launch "$dir" scheduler "$("$tool" kube-scheduler)" \
            --kubeconfig="$dir/scheduler.kubeconfig" --bind-address=127.0.0.1 --secure-port=0 --leader-elect=false
        ;;
    *)
        printf 'control-plane.sh: no part %s\n' "$part" >&2
        return 2
        ;;
    esac
}

api_ready() {
    [ "$("$kubectl" --kubeconfig "$1/kubeconfig" --request-timeout=2s get --raw /readyz 2>/dev/null)" = ok ]
}

await_api() {
    local dir="$1"
    alive_and_ready() { running "$dir" etcd && running "$dir" apiserver && api_ready "$dir"; }
    wait_until 120 "the API server (logs: $dir/logs/apiserver.log, etcd.log)" alive_and_ready
}

up() {
    local dir="$1" part
    shift
    local parts=("$@")
    [ "${#parts[@]}" -gt 0 ] || parts=(etcd apiserver controller-manager scheduler)
    mkdir -p "$dir"
    chmod 700 "$dir"
    dir="$(cd "$dir" && pwd)"
    kubectl="$("$tool" kubectl)"
    if running "$dir" apiserver; then
        printf 'control-plane.sh: already up in %s\n' "$dir" >&2
        return 2
    fi
    rm -rf "$dir/etcd" "$dir/pki" "$dir/run" "$dir/logs"
    mkdir -p "$dir/pki" "$dir/run" "$dir/logs"
    cp /etc/hosts "$dir/hosts"

    # One at a time chooses ports and binds them.
    local lock_fd
    exec {lock_fd}>"${TMPDIR:-/tmp}/lvs-operator-ports.$(id -u).lock"
    flock "$lock_fd"
    local API_PORT="${API_PORT:-$(free_port)}" ETCD_PORT ETCD_PEER_PORT ETCD_FLAGS=""
    ETCD_PORT="$(free_port)"
    ETCD_PEER_PORT="$(free_port)"
    if "$("$tool" etcd)" --help 2>&1 | grep -q -- --unsafe-no-fsync; then
        ETCD_FLAGS=--unsafe-no-fsync
    fi
    cat >"$dir/control-plane.env" <<E2
API_PORT=$API_PORT
API_URL=https://127.0.0.1:$API_PORT
GUEST_API_URL=https://$GUEST_VIEW_OF_HOST:$API_PORT
ETCD_PORT=$ETCD_PORT
ETCD_PEER_PORT=$ETCD_PEER_PORT
ETCD_FLAGS=$ETCD_FLAGS
E2
    start_part "$dir" etcd {lock_fd}>&-
    (
        certificate_authority "$dir/pki"
        sign "$dir/pki" apiserver /CN=kube-apiserver "extendedKeyUsage=serverAuth
subjectAltName=IP:127.0.0.1,IP:$GUEST_VIEW_OF_HOST,IP:${SERVICE_CIDR%.0/*}.1,DNS:localhost,DNS:kubernetes,DNS:kubernetes.default,DNS:kubernetes.default.svc,DNS:kubernetes.default.svc.cluster.local${API_SANS:+,$API_SANS}"
        sign "$dir/pki" apiserver-kubelet-client /O=system:masters/CN=kube-apiserver-kubelet-client "extendedKeyUsage=clientAuth"
        credentials "$dir" lab-admin system:masters "https://127.0.0.1:$API_PORT" "$dir/kubeconfig"
        credentials "$dir" system:kube-controller-manager system:kube-controller-manager "https://127.0.0.1:$API_PORT" "$dir/controller-manager.kubeconfig"
        credentials "$dir" system:kube-scheduler system:kube-scheduler "https://127.0.0.1:$API_PORT" "$dir/scheduler.kubeconfig"
    ) >>"$dir/logs/pki.log" 2>&1 || {
        tail -n 5 "$dir/logs/pki.log" >&2
        return 1
    }
    start_part "$dir" apiserver {lock_fd}>&-
    await_api "$dir"
    exec {lock_fd}>&-
    for part in "${parts[@]}"; do
        start_part "$dir" "$part"
    done
}

command="${1:-}"
dir="${2:-}"
if [ -z "$command" ] || [ -z "$dir" ]; then
    sed -n '2,/^set -e/{/^set -e/d;s/^# \{0,1\}//;p}' "${BASH_SOURCE[0]}" >&2
    exit 2
fi
shift 2
case "$command" in
up) up "$dir" "$@" ;;
down) finish_all "$dir" ;;
stop) finish "$dir" "$1" ;;
kill) finish "$dir" "$1" KILL ;;
etcd-through)
    dir="$(cd "$dir" && pwd)"
    kubectl="$("$tool" kubectl)"
    printf 'ETCD_RELAY_PORT=%s\n' "$1" >>"$dir/control-plane.env"
    finish "$dir" apiserver
    start_part "$dir" apiserver
    await_api "$dir"
    ;;
start)
    dir="$(cd "$dir" && pwd)"
    kubectl="$("$tool" kubectl)"
    start_part "$dir" "$1"
    if [ "$1" = apiserver ] || [ "$1" = etcd ]; then await_api "$dir"; fi
    ;;
credentials) credentials "$(cd "$dir" && pwd)" "$@" ;;
name) printf '%s %s\n' "$2" "$1" >>"$dir/hosts" ;;
*)
    printf 'control-plane.sh: no command %s\n' "$command" >&2
    exit 2
    ;;
esac
