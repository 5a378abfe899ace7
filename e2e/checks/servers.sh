#!/usr/bin/env bash
# Health checks against the server programs of Debian, each on loopback with a
# folder of its own: it passes while it runs, also over TLS where that can be,
# and fails with the right words when it has ended, or answers otherwise.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
# shellcheck source=../cluster/process.sh
. e2e/cluster/process.sh

e2e/setup/provision.sh servers rust
cargo build --quiet --locked --package lvs-agent --example ask
work="$(mktemp -d)"
chmod 755 "$work"
# Programs of another user write below it.
trap 'finish_all "$work"; [ -n "${KEEP:-}" ] || rm -rf "$work"' EXIT
asked=0

# An authority, and a certificate of it for the servers.
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=authority -keyout "$work/authority.key" -out "$work/authority.pem" 2>/dev/null
openssl req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj /CN=server.example.org -keyout "$work/key.pem" -out "$work/request.pem" 2>/dev/null
openssl x509 -req -days 2 -in "$work/request.pem" -CA "$work/authority.pem" -CAkey "$work/authority.key" -CAcreateserial \
    -extfile <(echo subjectAltName=DNS:server.example.org) -out "$work/certificate.pem" 2>/dev/null
chmod 644 "$work/key.pem"

# What checks log in with, as the Secret of an agent has it: one right name, one wrong.
mkdir "$work/credentials"
# credentials NAME FIELD TEXT
credentials() { printf '%s\n' "$3" >"$work/credentials/shop.$1.$2"; }
for name in right wrong; do
    credentials "$name" username monitor
    credentials "$name" password "$name"
done
logs_in() { printf '{"type": "%s", "credentialsName": "%s"}' "$1" "$2"; }
refusal="log-in refused"

ask() {
    SSL_CERT_FILE="$work/authority.pem" LVS_HEALTH_CHECK_CREDENTIALS_DIRECTORY="$work/credentials" target/debug/examples/ask "127.0.0.1:$1" "$2"
}

# passes PORT CHECK: within 30 s, which a program may take to start.
passes() {
    local said="" deadline=$((SECONDS + 30))
    asked=$((asked + 1))
    while [ "$SECONDS" -lt "$deadline" ]; do
        if said="$(ask "$1" "$2")"; then
            printf '  passes: %s\n' "$2"
            return 0
        fi
        sleep 0.1
    done
    printf 'FAILED: %s at port %s: %s; logs:\n' "$2" "$1" "$said" >&2
    tail -n 20 "$work"/logs/*.log >&2
    return 1
}

# fails PORT CHECK WORDS
fails() {
    local said
    asked=$((asked + 1))
    if said="$(ask "$1" "$2")" || [[ "$said" != *"$3"* ]]; then
        printf 'FAILED: %s at port %s says "%s", expected "%s"\n' "$2" "$1" "$said" "$3" >&2
        return 1
    fi
    printf '  fails:  %s: %s\n' "$2" "$said"
}

# ended NAME PORT CHECK WORDS: what the check says when the program has ended.
ended() {
    finish "$work" "$1"
    fails "$2" "$3" "$4"
}

named() { printf '%s\n' "$*"; }
tls() { printf '{"type": "%s", "tls": {"serverName": "server.example.org", "start": "%s"}}' "$1" "$2"; }
refused="connect refused"

named redis-server
port="$(free_port)"
launch "$work" redis redis-server --bind 127.0.0.1 --port "$port" --save '' --dir "$work"
passes "$port" '{"type": "Redis"}'
fails "$port" '{"type": "MySQL", "timeoutSeconds": 1}' "no greeting within 1 s"
redis-cli -p "$port" config set requirepass secret >/dev/null
passes "$port" '{"type": "Redis"}'
fails "$port" "$(logs_in Redis right)" "$refusal: WRONGPASS"
redis-cli -p "$port" --no-auth-warning -a secret acl setuser monitor on '>right' +ping >/dev/null
passes "$port" "$(logs_in Redis right)"
fails "$port" "$(logs_in Redis wrong)" "$refusal: WRONGPASS"
fails "$port" "$(logs_in Redis absent)" "not asked: no credentials absent for namespace shop: add key shop.absent.password to Secret checks"
ended redis "$port" '{"type": "Redis"}' "$refused"
port="$(free_port)"
launch "$work" redis-tls redis-server --bind 127.0.0.1 --port 0 --tls-port "$port" --tls-auth-clients no --save '' --dir "$work" \
    --tls-cert-file "$work/certificate.pem" --tls-key-file "$work/key.pem" --tls-ca-cert-file "$work/authority.pem"
passes "$port" "$(tls Redis Immediately)"
fails "$port" '{"type": "Redis", "tls": {}}' 'certificate is for "server.example.org", not for 127.0.0.1'
finish "$work" redis-tls
launch "$work" redis-mutual redis-server --bind 127.0.0.1 --port 0 --tls-port "$port" --tls-auth-clients yes --save '' --dir "$work" \
    --tls-cert-file "$work/certificate.pem" --tls-key-file "$work/key.pem" --tls-ca-cert-file "$work/authority.pem"
client='{"type": "Redis", "tls": {"serverName": "server.example.org", "credentialsName": "client"}}'
fails "$port" "$client" "not asked: no credentials client for namespace shop: add key shop.client.tls.crt to Secret checks"
cp "$work/certificate.pem" "$work/credentials/shop.client.tls.crt"
cp "$work/key.pem" "$work/credentials/shop.client.tls.key"
passes "$port" "$client"
fails "$port" "$(tls Redis Immediately)" "TLS ended by the real server: CertificateRequired"
ended redis-mutual "$port" "$(tls Redis Immediately)" "$refused"

named mariadbd
port="$(free_port)"
mkdir "$work/mariadb"
mariadb-install-db --no-defaults --user=root --datadir="$work/mariadb" --auth-root-authentication-method=normal >"$work/mariadb.log" 2>&1
launch "$work" mariadb mariadbd --no-defaults --user=root --datadir="$work/mariadb" --bind-address=127.0.0.1 --port="$port" \
    --socket="$work/mariadb.sock" --max-connect-errors=3 --ssl-cert="$work/certificate.pem" --ssl-key="$work/key.pem"
# More often than the server suffers of hosts that say nothing.
for ((count = 0; count < 6; count++)); do passes "$port" '{"type": "MySQL"}'; done
passes "$port" '{"type": "MySQL", "mysql": {"user": "root"}}'
mariadb_do() { mariadb --no-defaults --user=root --socket="$work/mariadb.sock" --execute="$1"; }
fails "$port" "$(logs_in MySQL right)" "$refusal: error 1045"
mariadb_do "CREATE USER monitor@localhost IDENTIFIED BY 'right'"
passes "$port" "$(logs_in MySQL right)"
fails "$port" "$(logs_in MySQL wrong)" "$refusal: error 1045"
passes "$port" "$(tls MySQL StartTLS)"
fails "$port" '{"type": "MySQL", "tls": {"start": "StartTLS"}}' 'certificate is for "server.example.org", not for 127.0.0.1'
secure_log_in="$(logs_in MySQL right | jq -c '.tls = {serverName: "server.example.org", start: "StartTLS"}')"
mariadb_do "ALTER USER monitor@localhost REQUIRE SSL"
fails "$port" "$(logs_in MySQL right)" "$refusal: error 1045"
passes "$port" "$secure_log_in"
mariadb_do "ALTER USER monitor@localhost REQUIRE NONE"
mariadb_do "ALTER USER monitor@localhost ACCOUNT LOCK"
fails "$port" "$(logs_in MySQL right)" "$refusal: error 4151"
ended mariadb "$port" '{"type": "MySQL"}' "$refused"

named postgres
port="$(free_port)"
bin=/usr/lib/postgresql/15/bin
mkdir "$work/postgresql"
chown postgres "$work/postgresql"
as_postgres=(setpriv --reuid=postgres --regid=postgres --clear-groups env --chdir=/ "HOME=$work/postgresql")
echo secret >"$work/password"
"${as_postgres[@]}" "$bin/initdb" --auth=scram-sha-256 --pwfile="$work/password" -D "$work/postgresql/data" >"$work/initdb.log" 2>&1
install --owner=postgres --mode=600 "$work/key.pem" "$work/postgresql/key.pem"
launch "$work" postgresql "${as_postgres[@]}" "$bin/postgres" -D "$work/postgresql/data" -p "$port" -c listen_addresses=127.0.0.1 \
    -c unix_socket_directories= -c ssl=on -c ssl_cert_file="$work/certificate.pem" -c ssl_key_file="$work/postgresql/key.pem"
passes "$port" '{"type": "PostgreSQL"}'
passes "$port" '{"type": "PostgreSQL", "postgresql": {"user": "postgres", "database": "absent"}}'
postgresql_do() { PGPASSWORD=secret "$bin/psql" -q -h 127.0.0.1 -p "$port" -U postgres -c "$1" postgres; }
fails "$port" "$(logs_in PostgreSQL right)" "$refusal: error \"28P01\""
postgresql_do "CREATE USER monitor PASSWORD 'right'"
passes "$port" "$(logs_in PostgreSQL right)"
fails "$port" "$(logs_in PostgreSQL wrong)" "$refusal: error \"28P01\""
fails "$port" '{"type": "PostgreSQL", "credentialsName": "right", "postgresql": {"database": "absent"}}' 'error "3D000"'
passes "$port" "$(tls PostgreSQL StartTLS)"
fails "$port" '{"type": "PostgreSQL", "tls": {"start": "StartTLS"}}' 'certificate is for "server.example.org", not for 127.0.0.1'
secure_log_in="$(logs_in PostgreSQL right | jq -c '.tls = {serverName: "server.example.org", start: "StartTLS"}')"
sed 's/^host /hostssl /' -i "$work/postgresql/data/pg_hba.conf"
postgresql_do "SELECT pg_reload_conf()" >/dev/null
fails "$port" "$(logs_in PostgreSQL right)" "$refusal: error \"28000\""
passes "$port" "$secure_log_in"
sed 's/^hostssl /host /' -i "$work/postgresql/data/pg_hba.conf"
postgresql_do "SELECT pg_reload_conf()" >/dev/null
passes "$port" "$(logs_in PostgreSQL right)"
for way in md5 password; do
    sed "s/scram-sha-256\$/$way/" -i "$work/postgresql/data/pg_hba.conf"
    [ "$way" = password ] || postgresql_do "SET password_encryption = md5; ALTER USER monitor PASSWORD 'right'"
    postgresql_do "SELECT pg_reload_conf()" >/dev/null
    passes "$port" "$(logs_in PostgreSQL right)"
    fails "$port" "$(logs_in PostgreSQL wrong)" "$refusal: error \"28P01\""
    sed "s/$way\$/scram-sha-256/" -i "$work/postgresql/data/pg_hba.conf"
done
ended postgresql "$port" '{"type": "PostgreSQL"}' "$refused"

named slapd
port="$(free_port)" secure="$(free_port)"
mkdir "$work/ldap"
cat >"$work/slapd.conf" <<C
include /etc/ldap/schema/core.schema
moduleload back_mdb
pidfile $work/ldap/pid
TLSCertificateFile $work/certificate.pem
TLSCertificateKeyFile $work/key.pem
database mdb
suffix dc=example,dc=org
rootdn cn=monitor,dc=example,dc=org
rootpw right
directory $work/ldap
C
launch "$work" slapd slapd -d 0 -f "$work/slapd.conf" -h "ldap://127.0.0.1:$port ldaps://127.0.0.1:$secure"
passes "$port" '{"type": "LDAP"}'
passes "$secure" "$(tls LDAP Immediately)"
credentials directory username cn=monitor,dc=example,dc=org
credentials directory password right
passes "$port" "$(logs_in LDAP directory)"
credentials directory password wrong
fails "$port" "$(logs_in LDAP directory)" "$refusal: result 49"
credentials directory password right
ended slapd "$port" '{"type": "LDAP"}' "$refused"
echo 'disallow bind_anon' | cat - "$work/slapd.conf" >"$work/closed.conf"
launch "$work" slapd-closed slapd -d 0 -f "$work/closed.conf" -h "ldap://127.0.0.1:$port"
passes "$port" '{"type": "LDAP"}'
passes "$port" "$(logs_in LDAP directory)"
ended slapd-closed "$port" '{"type": "LDAP"}' "$refused"

named dovecot
imap="$(free_port)" imaps="$(free_port)" pop3="$(free_port)" pop3s="$(free_port)"
mkdir "$work/dovecot"
install -d -o mail -g mail "$work/mailboxes"
cat >"$work/dovecot.conf" <<C
base_dir = $work/dovecot
state_dir = $work/dovecot
log_path = /dev/stderr
protocols = imap pop3
listen = 127.0.0.1
ssl = yes
ssl_cert = <$work/certificate.pem
ssl_key = <$work/key.pem
disable_plaintext_auth = yes
passdb {
  driver = static
  args = password=right
}
userdb {
  driver = static
  args = uid=mail gid=mail home=$work/mailboxes/%u
}
first_valid_uid = 1
mail_location = maildir:~/mail
service imap-login {
  inet_listener imap {
    port = $imap
  }
  inet_listener imaps {
    port = $imaps
  }
}
service pop3-login {
  inet_listener pop3 {
    port = $pop3
  }
  inet_listener pop3s {
    port = $pop3s
  }
}
C
launch "$work" dovecot dovecot -F -c "$work/dovecot.conf"
passes "$imap" '{"type": "IMAP"}'
passes "$imap" "$(tls IMAP StartTLS)"
passes "$imaps" "$(tls IMAP Immediately)"
passes "$pop3" '{"type": "POP3"}'
passes "$pop3" "$(tls POP3 StartTLS)"
passes "$pop3s" "$(tls POP3 Immediately)"
for type in IMAP POP3; do
    port="$imaps" && [ "$type" = IMAP ] || port="$pop3s"
    passes "$port" "{\"type\": \"$type\", \"credentialsName\": \"right\", \"tls\": {\"serverName\": \"server.example.org\"}}"
    fails "$port" "{\"type\": \"$type\", \"credentialsName\": \"wrong\", \"tls\": {\"serverName\": \"server.example.org\"}}" "$refusal: "
done
passes "$imap" "$(logs_in IMAP right)"
fails "$pop3" '{"type": "IMAP"}' "greeting is"
fails "$imaps" '{"type": "IMAP", "timeoutSeconds": 1}' "no greeting within 1 s"
fails "$imap" '{"type": "IMAP", "tls": {"serverName": "other.example.org", "start": "StartTLS"}}' \
    'certificate is for "server.example.org", not for other.example.org'
ended dovecot "$imap" '{"type": "IMAP"}' "$refused"

named exim4
port="$(free_port)" secure="$(free_port)"
mkdir "$work/exim"
cat >"$work/exim.conf" <<C
primary_hostname = server.example.org
spool_directory = $work/exim
log_file_path = $work/exim/%slog
daemon_smtp_ports = $port : $secure
tls_on_connect_ports = $secure
local_interfaces = 127.0.0.1
tls_advertise_hosts = *
tls_certificate = $work/certificate.pem
tls_privatekey = $work/key.pem
acl_smtp_rcpt = deny
C
chown -R Debian-exim "$work/exim"
launch "$work" exim exim4 -bdf -C "$work/exim.conf"
passes "$port" '{"type": "SMTP"}'
passes "$port" "$(tls SMTP StartTLS)"
passes "$secure" "$(tls SMTP Immediately)"
fails "$port" '{"type": "FTP", "tls": {"start": "StartTLS"}}' "reply to AUTH TLS is"
ended exim "$port" '{"type": "SMTP"}' "$refused"

named vsftpd
port="$(free_port)"
mkdir "$work/ftp"
cat >"$work/vsftpd.conf" <<C
listen=YES
listen_address=127.0.0.1
listen_port=$port
background=NO
anonymous_enable=YES
anon_root=$work/ftp
secure_chroot_dir=$work/ftp
ssl_enable=YES
ssl_tlsv1=YES
rsa_cert_file=$work/certificate.pem
rsa_private_key_file=$work/key.pem
seccomp_sandbox=NO
C
launch "$work" vsftpd vsftpd "$work/vsftpd.conf"
passes "$port" '{"type": "FTP"}'
passes "$port" "$(tls FTP StartTLS)"
# It lets in whoever says that he is nobody.
credentials anonymous username anonymous
credentials anonymous password lvs@example.org
passes "$port" "$(logs_in FTP anonymous)"
fails "$port" "$(logs_in FTP right)" "$refusal: 530"
ended vsftpd "$port" '{"type": "FTP"}' "$refused"

named freeradius
port="$(free_port)"
mkdir "$work/radius"
cat >"$work/radius/radiusd.conf" <<C
libdir = /usr/lib/freeradius
raddbdir = $work/radius
logdir = $work/radius
run_dir = $work/radius
security {
    status_server = yes
    reject_delay = 0
}
client loopback {
    ipaddr = 127.0.0.1
    secret = shared
    require_message_authenticator = yes
}
modules {
    pap {
    }
    files {
        filename = $work/radius/users
    }
}
server checks {
    listen {
        type = auth
        ipaddr = 127.0.0.1
        port = $port
    }
    authorize {
        files
        pap
    }
    authenticate {
        Auth-Type PAP {
            pap
        }
    }
}
C
printf '%sINCLUDE /usr/share/freeradius/dictionary\n' '$' >"$work/radius/dictionary"
echo 'monitor Cleartext-Password := "right"' >"$work/radius/users"
launch "$work" freeradius freeradius -f -l stdout -d "$work/radius"
credentials status secret shared
credentials right secret shared
credentials wrong secret shared
credentials stranger secret other
passes "$port" "$(logs_in RADIUS status)"
passes "$port" "$(logs_in RADIUS right)"
fails "$port" "$(logs_in RADIUS wrong)" "$refusal: Access-Reject"
fails "$port" '{"type": "RADIUS", "credentialsName": "stranger", "timeoutSeconds": 1}' \
    "no reply within 1 s: the server is down, does not know this node or has another secret"
ended freeradius "$port" "$(logs_in RADIUS status)" "port unreachable"

named lighttpd, that wants user and password
port="$(free_port)"
mkdir "$work/web"
cat >"$work/lighttpd.conf" <<C
server.modules = ("mod_auth", "mod_authn_file", "mod_openssl")
server.bind = "127.0.0.1"
server.port = $port
server.document-root = "$work/web"
index-file.names = ("page")
ssl.engine = "enable"
ssl.pemfile = "$work/certificate.pem"
ssl.privkey = "$work/key.pem"
auth.backend = "plain"
auth.backend.plain.userfile = "$work/web/users"
auth.require = ("" => ("method" => "basic", "realm" => "checks", "require" => "valid-user"))
C
echo up >"$work/web/page"
echo monitor:right >"$work/web/users"
launch "$work" lighttpd lighttpd -D -f "$work/lighttpd.conf"
page() { printf '{"type": "HTTPS", "http": {"host": "server.example.org"%s}}' "$1"; }
passes "$port" "$(page ', "credentialsName": "right", "body": {"type": "Text", "value": "up"}')"
fails "$port" "$(page ', "credentialsName": "wrong"')" "$refusal: status 401, expected 200-299"
fails "$port" "$(page '')" "status 401, expected 200-299"
passes "$port" "$(page ', "version": "HTTP2", "credentialsName": "right", "body": {"type": "Text", "value": "up"}')"
fails "$port" "$(page ', "version": "HTTP2"')" "status 401, expected 200-299"
ended lighttpd "$port" "$(page ', "credentialsName": "right"')" "$refused"

named lighttpd, by HTTP/2 in plain text, and where it is switched off
port="$(free_port)"
plain() { printf '{"type": "HTTP", "http": {"version": "HTTP2"%s}}' "$1"; }
cat >"$work/plain.conf" <<C
server.bind = "127.0.0.1"
server.port = $port
server.document-root = "$work/web"
index-file.names = ("page")
C
launch "$work" lighttpd-plain lighttpd -D -f "$work/plain.conf"
passes "$port" "$(plain ', "body": {"type": "Regex", "value": "^up"}')"
fails "$port" "$(plain ', "path": "/absent"')" "status 404, expected 200-299"
version="$(curl --silent --http2-prior-knowledge --output /dev/null --write-out '%{http_version}' "http://127.0.0.1:$port/")"
[ "$version" = 2 ] || { printf 'FAILED: curl is answered by HTTP/%s\n' "$version" >&2 && exit 1; }
ended lighttpd-plain "$port" "$(plain '')" "$refused"
sed '/^auth\.\|mod_auth/d' "$work/lighttpd.conf" >"$work/first.conf"
cat >>"$work/first.conf" <<'C'
server.modules = ("mod_openssl")
server.feature-flags = ("server.h2proto" => "disable")
C
port="$(sed -n 's/^server.port = //p' "$work/first.conf")"
launch "$work" lighttpd-first lighttpd -D -f "$work/first.conf"
passes "$port" "$(page ', "body": {"type": "Text", "value": "up"}')"
fails "$port" "$(page ', "version": "HTTP2"')" "the server does not offer the protocol that is asked for (ALPN)"
ended lighttpd-first "$port" "$(page '')" "$refused"

named kamailio
port="$(free_port)"
cat >"$work/kamailio.cfg" <<C
listen=udp:127.0.0.1:$port
listen=tcp:127.0.0.1:$port
children=1
loadmodule "sl.so"
request_route {
    if (method == "OPTIONS") {
        sl_send_reply("200", "OK");
    } else {
        sl_send_reply("404", "Not here");
    }
}
C
launch "$work" kamailio kamailio -DD -E -m 16 -M 4 -f "$work/kamailio.cfg" -Y "$work"
passes "$port" '{"type": "SIP"}'
passes "$port" '{"type": "SIP", "sip": {"transport": "TCP"}}'
ended kamailio "$port" '{"type": "SIP"}' "port unreachable"

named etcd, which answers grpc.health.v1
port="$(free_port)" peers="$(free_port)"
launch "$work" etcd etcd --data-dir "$work/etcd" --listen-client-urls "http://127.0.0.1:$port" --advertise-client-urls "http://127.0.0.1:$port" \
    --listen-peer-urls "http://127.0.0.1:$peers" --unsafe-no-fsync
passes "$port" '{"type": "GRPC"}'
fails "$port" '{"type": "GRPC", "grpc": {"service": "shop.Cart"}}' 'the server knows no service "shop.Cart"'
passes "$port" '{"type": "HTTP", "http": {"path": "/health", "body": {"type": "Regex", "value": "\"health\": ?\"true\""}}}'
ended etcd "$port" '{"type": "GRPC"}' "$refused"

named named
port="$(free_port)"
mkdir "$work/named"
cat >"$work/named.conf" <<C
options { directory "$work/named"; listen-on port $port { 127.0.0.1; }; listen-on-v6 { none; }; recursion no; pid-file none; session-keyfile "$work/named/key"; };
controls { };
zone "example.org" { type primary; file "$work/named/zone"; };
C
cat >"$work/named/zone" <<'C'
$TTL 60
@ IN SOA ns admin 1 60 60 60 60
@ IN NS ns
@ IN MX 10 mx
@ IN TXT "v=spf1" " -all"
ns IN A 192.0.2.1
www IN A 192.0.2.2
C
launch "$work" named named -g -c "$work/named.conf"
passes "$port" '{"type": "DNS", "dns": {"name": "www.example.org"}}'
passes "$port" '{"type": "DNS", "dns": {"name": "www.example.org", "answers": ["192.0.2.2"]}}'
passes "$port" '{"type": "DNS", "dns": {"name": "example.org", "recordType": "SOA", "answers": ["NS.example.org. admin.example.org. 1 60 60 60 60"]}}'
passes "$port" '{"type": "DNS", "dns": {"name": "example.org", "recordType": "MX", "answers": ["10 mx.example.org"]}}'
passes "$port" '{"type": "DNS", "dns": {"name": "example.org", "recordType": "TXT", "answers": ["v=spf1 -all"]}}'
fails "$port" '{"type": "DNS", "dns": {"name": "www.example.org", "answers": ["192.0.2.9"]}}' 'records A of www.example.org: "192.0.2.2", expected "192.0.2.9"'
fails "$port" '{"type": "DNS", "dns": {"name": "mail.example.org"}}' "NXDOMAIN for A of mail.example.org"
fails "$port" '{"type": "DNS", "dns": {"name": "www.example.net"}}' "REFUSED for A of www.example.net"
ended named "$port" '{"type": "DNS", "dns": {"name": "www.example.org"}}' "port unreachable"

echo "$asked questions to 12 programs answered as they must be"
