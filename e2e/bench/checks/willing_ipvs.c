// For keepalived on a machine whose kernel has no IPVS: its rules are taken and forgotten, so that it checks as it does
// anywhere. Preloaded; the interface is that of setsockopt in include/uapi/linux/ip_vs.h, which keepalived falls back to
// when there is no generic netlink family "IPVS".
#define _GNU_SOURCE
#include <dlfcn.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/socket.h>

// IP_VS_BASE_CTL, and more than all options that follow it.
enum { FIRST_OPTION = 64 + 1024 + 64, OPTIONS = 64, GET_INFO = FIRST_OPTION + 1, VERSION = 0x010201 };

struct nl_sock;

int genl_ctrl_resolve(struct nl_sock *socket, const char *name);
int genl_ctrl_resolve(struct nl_sock *socket, const char *name) {
    int (*next)(struct nl_sock *, const char *) = dlsym(RTLD_NEXT, "genl_ctrl_resolve");
    return strcmp(name, "IPVS") == 0 ? -12 /* NLE_OBJ_NOTFOUND */ : next(socket, name);
}

static int is_ipvs(int level, int option) {
    return level == IPPROTO_IP && option >= FIRST_OPTION && option < FIRST_OPTION + OPTIONS;
}

int setsockopt(int socket, int level, int option, const void *value, socklen_t length) {
    int (*next)(int, int, int, const void *, socklen_t) = dlsym(RTLD_NEXT, "setsockopt");
    return is_ipvs(level, option) ? 0 : next(socket, level, option, value, length);
}

int getsockopt(int socket, int level, int option, void *restrict value, socklen_t *restrict length) {
    int (*next)(int, int, int, void *, socklen_t *) = dlsym(RTLD_NEXT, "getsockopt");
    if (!is_ipvs(level, option)) return next(socket, level, option, value, length);
    memset(value, 0, *length);
    if (option == GET_INFO) memcpy(value, &(unsigned int){VERSION}, sizeof(unsigned int));
    return 0;
}
