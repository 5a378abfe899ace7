# Sourced (after process.sh): QEMU guests on the machine's own root, read-only.
#
#   STATE/guests/<name>/share/    9p, read-write, mount tag "share", /share in the guest
#   STATE/guests/<name>/console   unix socket: a root shell on the guest's serial line
#   STATE/logs/<name>.console.log everything the guest printed there
# shellcheck shell=bash

QEMU_HERE="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
# shellcheck source=../setup/cache.sh
. "$QEMU_HERE/../setup/cache.sh"
# The port of the command server inside every guest.
COMMAND_PORT=7000

# accelerator: QEMU's flags for the fastest way that really works here.
# LVS_ACCEL=tcg forces emulation. That /dev/kvm opens, and even that a virtual
# processor can be made, says little inside some virtual machines, so the
# guests' kernel is really booted once; the answer is kept for this boot.
accelerator() {
    local kernel answer cpu emulation="-accel tcg,thread=multi,tb-size=256 -cpu max"
    if [ "${LVS_ACCEL:-}" = tcg ] || [ ! -w /dev/kvm ]; then
        printf '%s\n' "$emulation"
        return
    fi
    answer="${LVS_CACHE:?}/accelerator-$(cat /proc/sys/kernel/random/boot_id)"
    if [ ! -s "$answer" ]; then
        kernel="$("$QEMU_HERE/../setup/kernel.sh")"
        printf '%s\n' "$emulation" >"$answer.$$"
        for cpu in host host,-arch-capabilities; do
            if timeout 8 qemu-system-x86_64 -M q35 -accel kvm -cpu "$cpu" -m 256 -display none -monitor none \
                -nodefaults -no-reboot -serial stdio -kernel "$kernel/vmlinuz" \
                -append "console=ttyS0 panic=-1" </dev/null 2>&1 | grep -q "Linux version"; then
                printf '%s\n' "-accel kvm -cpu $cpu" >"$answer.$$"
                break
            fi
        done
        mv "$answer.$$" "$answer"
    fi
    cat "$answer"
}

# boot_guest STATE NAME SCRIPT MEMORY_MIB CPUS [QEMU ARGUMENT…]: starts a guest
# that runs SCRIPT (absolute path) as pid 1. Before: the caller may put files
# into its share. "hostfwd" of the user network (eth0, 10.0.2.15) carries the
# command port; more forwards in GUEST_FORWARDS ("address:port-:guestport …").
boot_guest() {
    local state="$1" name="$2" script="$3" memory="$4" cpus="$5" directory kernel port forward forwards accel
    shift 5
    directory="$state/guests/$name"
    kernel="$("$QEMU_HERE/../setup/kernel.sh")"
    mkdir -p "$directory/share"
    chmod 700 "$directory"
    rm -f "$directory/share/marks" "$directory/console"
    # QEMU's working directory is the guest's: paths of unix sockets are short.
    directory="$(cd "$directory" && pwd)"
    state="$(cd "$state" && pwd)"
    port="$(free_port)"
    printf '%s\n' "$port" >"$directory/command-port"
    # Whoever reaches the port on loopback needs this secret: a shell in the
    # guest can read the machine's root.
    (umask 077 && openssl rand -hex 16 >"$directory/share/token")
    forwards=",hostfwd=tcp:127.0.0.1:$port-:$COMMAND_PORT"
    for forward in ${GUEST_FORWARDS:-}; do
        forwards+=",hostfwd=tcp:$forward"
    done
    read -r -a accel <<<"${LVS_QEMU_ACCELERATOR:-$(accelerator)}"
    launch "$state" "$name" env --chdir="$directory" qemu-system-x86_64 "${accel[@]}" -M q35 -smp "$cpus" -m "$memory" \
        -display none -monitor none -no-reboot -nodefaults \
        -chardev "socket,id=console,path=console,server=on,wait=off,logfile=$state/logs/$name.console.log" \
        -serial chardev:console \
        -kernel "$kernel/vmlinuz" -initrd "$kernel/initramfs.gz" \
        -append "console=ttyS0 quiet panic=-1 mitigations=off rcupdate.rcu_expedited=1 lvs.init=$script lvs.kernel=$kernel lvs.repository=$(cd "$QEMU_HERE/../.." && pwd)" \
        -fsdev "local,id=root,path=/,security_model=none,readonly=on,multidevs=remap" \
        -device virtio-9p-pci,fsdev=root,mount_tag=hostroot \
        -fsdev "local,id=share,path=$directory/share,security_model=none" \
        -device virtio-9p-pci,fsdev=share,mount_tag=share \
        -device virtio-rng-pci \
        -netdev "user,id=user$forwards" -device virtio-net-pci,netdev=user,mac=52:54:00:00:00:01 \
        "$@"
}

# run_in_guest STATE NAME SCRIPT [ARGUMENT…]: runs a bash script there; its
# standard output, standard error and exit status come back. Status 255 when the guest
# does not answer.
run_in_guest() {
    local directory="$1/guests/$2" script="$3" LC_ALL=C channel status output errors
    shift 3
    [ $# -eq 0 ] || script="set -- $(printf '%q ' "$@")
$script"
    {
        exec {channel}<>"/dev/tcp/127.0.0.1/$(cat "$directory/command-port")"
    } 2>/dev/null || return 255
    printf '%s\n%s\n%s' "$(cat "$directory/share/token")" "${#script}" "$script" >&"$channel"
    if ! read -r -t "${GUEST_ANSWER_SECONDS:-3600}" status output errors <&"$channel"; then
        exec {channel}>&-
        return 255
    fi
    head -c "$output" <&"$channel"
    head -c "$errors" <&"$channel" >&2
    exec {channel}>&-
    return "$status"
}

# guest_answers STATE NAME: its command server is up and does what it is told.
# Looks at the guest's own marks first: that costs it nothing.
guest_answers() {
    grep -qs ' command server$' "$1/guests/$2/share/marks" &&
        [ "$(GUEST_ANSWER_SECONDS=20 run_in_guest "$1" "$2" 'echo yes' 2>/dev/null)" = yes ]
}

# await_guest STATE NAME SECONDS: until its command server answers; ends early
# when the guest is gone.
await_guest() {
    local state="$1" name="$2" deadline=$((SECONDS + $3))
    until guest_answers "$state" "$name"; do
        if ! running "$state" "$name" || [ "$SECONDS" -ge "$deadline" ]; then
            printf 'guest %s does not answer; its console: %s\n' "$name" "$state/logs/$name.console.log" >&2
            tail -n 5 "$state/logs/$name.log" "$state/logs/$name.console.log" >&2 || true
            return 1
        fi
        sleep 0.2
    done
}
