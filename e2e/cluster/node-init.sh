#!/bin/bash
# Pid 1 of a guest that is a Kubernetes node: containerd, kubelet, kube-proxy
# and the bridge CNI plugin, all real. eth0 has the default route (the way to
# the API server), eth1 the segment with the node's address.
# shellcheck source=guest-init.sh
. "$(dirname "${BASH_SOURCE[0]}")/guest-init.sh"

# Our own processes in a leaf of the cgroup tree, then every controller on.
mkdir -p /sys/fs/cgroup/system
echo 1 >/sys/fs/cgroup/system/cgroup.procs
for process in $(</sys/fs/cgroup/cgroup.procs); do
    echo "$process" >/sys/fs/cgroup/system/cgroup.procs 2>/dev/null
done
for controller in $(</sys/fs/cgroup/cgroup.controllers); do
    echo "+$controller" >/sys/fs/cgroup/cgroup.subtree_control
done

modprobe overlay
mkdir -p /var/lib/containerd /var/lib/kubelet /etc/containerd
mount -t tmpfs -o mode=755 containerd /var/lib/containerd
# The images that the node starts with (image-store.sh) stay where they are; what
# containerd itself keeps of them is copied, and new ones come beside them.
store=/var/lib/containerd
content=io.containerd.content.v1.content
snapshots=io.containerd.snapshotter.v1.overlayfs
mkdir -p $store/{content-upper,content-work,$content,$snapshots/snapshots,io.containerd.metadata.v1.bolt}
mount -t overlay -o "lowerdir=$IMAGE_STORE/$content,upperdir=$store/content-upper,workdir=$store/content-work" content $store/$content
cp -a "$IMAGE_STORE/io.containerd.metadata.v1.bolt/." $store/io.containerd.metadata.v1.bolt/
cp -a "$IMAGE_STORE/$snapshots/metadata.db" $store/$snapshots/
for snapshot in "$IMAGE_STORE/$snapshots"/snapshots/*; do
    mkdir "$store/$snapshots/snapshots/${snapshot##*/}"
    mount --bind "$snapshot" "$store/$snapshots/snapshots/${snapshot##*/}"
done
mount -t tmpfs -o mode=755 kubelet /var/lib/kubelet
rm -rf /etc/cni
mkdir -p /etc/cni/net.d

# The kubelet wants to know how fast the processor is; this kernel does not say.
{
    cat /proc/cpuinfo
    printf 'cpu MHz\t\t: 1000.000\n'
} >/run/cpuinfo
mount --bind /run/cpuinfo /proc/cpuinfo

# What a node of any Kubernetes installation has; nothing that the product
# should be able to load by itself.
modprobe -a bridge dummy veth nf_conntrack nf_tables || mark "a module failed to load"
sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1

# The pod network: one subnet per node, the bridge made here once so that the
# first pod changes nothing (not even its link-local address, which comes with
# the first port), and plain routes to the other nodes' subnets.
ip -batch - <<B
link set eth1 up
address add $SEGMENT_IPV4.$NODE_OCTET/24 dev eth1
address add $SEGMENT_IPV6::$NODE_OCTET/64 dev eth1 nodad
link add cni0 address 52:54:00:00:03:0$NODE_INDEX type bridge
address add $POD_NETWORK.$NODE_INDEX.1/24 dev cni0
link add cni0-carrier address 52:54:00:00:04:0$NODE_INDEX type dummy
link set cni0-carrier master cni0 up
link set cni0 up
$(for index in $NODE_INDEXES; do
    [ "$index" = "$NODE_INDEX" ] || echo "route add $POD_NETWORK.$index.0/24 via $SEGMENT_IPV4.$((NODE_OCTET - NODE_INDEX + index))"
done)
B
sysctl -qw net.ipv6.conf.cni0.accept_ra=0
nft -f - <<N
table ip pod-network {
    chain postrouting {
        type nat hook postrouting priority srcnat
        ip saddr $POD_NETWORK.0.0/16 oifname "eth0" masquerade
    }
}
N
cat >/etc/cni/net.d/10-bridge.conflist <<T
{"cniVersion": "0.4.0", "name": "pods", "plugins": [
  {"type": "bridge", "bridge": "cni0", "isGateway": true, "ipMasq": false, "hairpinMode": true,
   "ipam": {"type": "host-local", "ranges": [[{"subnet": "$POD_NETWORK.$NODE_INDEX.0/24"}]], "routes": [{"dst": "0.0.0.0/0"}]}}
]}
T
cat >/etc/containerd/config.toml <<T
version = 2
disabled_plugins = ["io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.zfs", "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.aufs", "io.containerd.tracing.processor.v1.otlp", "io.containerd.internal.v1.tracing"]
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "$PAUSE_IMAGE"
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "overlayfs"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
        SystemdCgroup = false
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "/etc/cni/net.d"
T
cat >/etc/kubelet.yaml <<T
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
cgroupDriver: cgroupfs
failSwapOn: false
port: 10250
containerRuntimeEndpoint: unix:///run/containerd/containerd.sock
authentication: {anonymous: {enabled: false}, webhook: {enabled: true}, x509: {clientCAFile: /share/ca.crt}}
authorization: {mode: Webhook}
evictionHard: {memory.available: 50Mi, nodefs.available: "1%", imagefs.available: "1%"}
imageGCHighThresholdPercent: 100
housekeepingInterval: 30s
clusterDomain: cluster.local
resolvConf: /etc/resolv.conf
makeIPTablesUtilChains: false
registerNode: true
volumePluginDir: /var/lib/kubelet/volume-plugins
localStorageCapacityIsolation: false
shutdownGracePeriod: 0s
T
cat >/etc/kube-proxy.yaml <<T
apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
mode: nftables
clientConnection: {kubeconfig: /share/kube-proxy.kubeconfig}
clusterCIDR: $POD_NETWORK.0.0/16
hostnameOverride: $GUEST_NAME
T
mark network

containerd >/share/containerd.log 2>&1 &
until [ -S /run/containerd/containerd.sock ]; do sleep 0.1; done
mark containerd
"$KUBELET" --config=/etc/kubelet.yaml --kubeconfig=/share/kubelet.kubeconfig --hostname-override="$GUEST_NAME" \
    --node-ip="$SEGMENT_IPV4.$NODE_OCTET" --root-dir=/var/lib/kubelet >/share/kubelet.log 2>&1 &
until { : </dev/tcp/127.0.0.1/10248; } 2>/dev/null; do sleep 0.1; done
mark kubelet
# No iptables within its reach: it would look dozens of times for what an older
# kube-proxy may have left, and each look is a process.
mkdir /run/kube-proxy-tools
ln -s "$(command -v nft)" /run/kube-proxy-tools/nft
PATH=/run/kube-proxy-tools "$KUBE_PROXY" --config=/etc/kube-proxy.yaml >/share/kube-proxy.log 2>&1 &
until [[ $(</share/kube-proxy.log) == *'"Caches are synced" controller="service config"'* ]]; do sleep 0.1; done
mark kube-proxy
until nft list table ip kube-proxy >/dev/null 2>&1; do sleep 0.1; done
mark ready
serve
