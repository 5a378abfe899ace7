// Real servers for bench-checks: all addresses of 127/8 on one TCP port and one HTTP port. It notes when each of them is
// asked, which is how the rhythm of any prober is judged alike.
//
//   listener TCP_PORT HTTP_PORT TARGETS PERIOD_SECONDS
//
// It prints "ready" when it listens, and "spread" when every target was asked twice. At SIGTERM it prints one JSON object:
// intervals between two questions to the same target, without the first two questions, which spread the checks.
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { FIRST = 2, EVENTS = 256, OPEN = 65536 };

static int targets;
// Targets that were asked FIRST times.
static int spread;
static double period;
static double *last;
static unsigned *count;
static double *intervals;
static size_t used, room;
// Port of each open connection by descriptor; 0 = HTTP.
static unsigned char is_http[OPEN];

static double now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

static void note(int fd) {
    struct sockaddr_in own;
    socklen_t length = sizeof own;
    if (getsockname(fd, (struct sockaddr *)&own, &length) != 0) return;
    uint32_t index = ntohl(own.sin_addr.s_addr) - 0x7f010000u;
    if (index >= (uint32_t)targets) return;
    double at = now();
    if (++count[index] == FIRST && ++spread == targets) {
        puts("spread");
        fflush(stdout);
    }
    if (count[index] > FIRST) {
        if (used == room) {
            room = room ? room * 2 : 65536;
            intervals = realloc(intervals, room * sizeof *intervals);
            if (!intervals) exit(1);
        }
        intervals[used++] = at - last[index];
    }
    last[index] = at;
}

static int ascending(const void *left, const void *right) {
    double difference = *(const double *)left - *(const double *)right;
    return difference < 0 ? -1 : difference > 0;
}

static int listen_on(int port, int epoll) {
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), one = 1;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    struct sockaddr_in any = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    if (bind(fd, (struct sockaddr *)&any, sizeof any) != 0 || listen(fd, 4096) != 0) {
        perror("listening");
        exit(1);
    }
    struct epoll_event event = {.events = EPOLLIN, .data.fd = fd};
    epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event);
    return fd;
}

static void report(void) {
    qsort(intervals, used, sizeof *intervals, ascending);
    size_t asked = 0, late = 0;
    for (int index = 0; index < targets; index++) asked += count[index] > FIRST;
    for (size_t index = 0; index < used; index++) late += intervals[index] > period * 1.1;
    double middle = used ? intervals[used / 2] : 0, high = used ? intervals[used - 1 - used / 100] : 0;
    printf("{\"targets\": %d, \"targets_asked\": %zu, \"intervals\": %zu, \"median_seconds\": %.4f, \"p99_seconds\": %.4f, "
           "\"longest_seconds\": %.4f, \"late_by_a_tenth\": %zu}\n",
           targets, asked, used, middle, high, used ? intervals[used - 1] : 0, late);
}

int main(int argc, char **argv) {
    if (argc != 5) {
        fprintf(stderr, "usage: listener TCP_PORT HTTP_PORT TARGETS PERIOD_SECONDS\n");
        return 2;
    }
    targets = atoi(argv[3]);
    period = atof(argv[4]);
    last = calloc((size_t)targets, sizeof *last);
    count = calloc((size_t)targets, sizeof *count);
    if (!last || !count) return 1;
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigprocmask(SIG_BLOCK, &set, NULL);
    int epoll = epoll_create1(EPOLL_CLOEXEC), signals = signalfd(-1, &set, SFD_CLOEXEC);
    int tcp = listen_on(atoi(argv[1]), epoll), http = listen_on(atoi(argv[2]), epoll);
    struct epoll_event event = {.events = EPOLLIN, .data.fd = signals};
    epoll_ctl(epoll, EPOLL_CTL_ADD, signals, &event);
    puts("ready");
    fflush(stdout);
    for (;;) {
        struct epoll_event events[EVENTS];
        int ready = epoll_wait(epoll, events, EVENTS, -1);
        for (int index = 0; index < ready; index++) {
            int fd = events[index].data.fd;
            if (fd == signals) {
                report();
                return 0;
            }
            if (fd == tcp || fd == http) {
                int taken;
                while ((taken = accept4(fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0) {
                    note(taken);
                    if (taken >= OPEN) {
                        close(taken);
                        continue;
                    }
                    is_http[taken] = fd == http;
                    struct epoll_event one = {.events = EPOLLIN, .data.fd = taken};
                    epoll_ctl(epoll, EPOLL_CTL_ADD, taken, &one);
                }
                continue;
            }
            char request[2048];
            ssize_t got = read(fd, request, sizeof request);
            if (got > 0 && is_http[fd]) {
                static const char answer[] = "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nConnection: close\r\n\r\nok\n";
                if (write(fd, answer, sizeof answer - 1) < 0 && errno == EAGAIN) continue;
            }
            if (got <= 0 || is_http[fd]) close(fd);
        }
    }
}
