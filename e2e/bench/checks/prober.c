// The peer of bench-checks: TCP and HTTP checks with nothing but epoll, one thread, no verdicts, no timeouts.
//
//   prober TCP_PORT TCP_COUNT HTTP_PORT HTTP_COUNT PERIOD_SECONDS SECONDS
//
// Prints one JSON object: processor time of the last half of the run, and memory.
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { EVENTS = 256, OPEN = 65536 };

static unsigned char is_http[OPEN], has_asked[OPEN];

static double now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

static double processor(void) {
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    return (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
           (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6;
}

static void finish(int fd) {
    struct linger reset = {.l_onoff = 1, .l_linger = 0};
    setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
    close(fd);
}

static void ask(int epoll, uint32_t index, int port, int http) {
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0 || fd >= OPEN) {
        perror("socket");
        exit(1);
    }
    struct sockaddr_in target = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port),
                                 .sin_addr.s_addr = htonl(0x7f010000u + index)};
    if (connect(fd, (struct sockaddr *)&target, sizeof target) != 0 && errno != EINPROGRESS) {
        finish(fd);
        return;
    }
    is_http[fd] = (unsigned char)http;
    has_asked[fd] = 0;
    struct epoll_event event = {.events = EPOLLOUT, .data.fd = fd};
    epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event);
}

int main(int argc, char **argv) {
    if (argc != 7) {
        fprintf(stderr, "usage: prober TCP_PORT TCP_COUNT HTTP_PORT HTTP_COUNT PERIOD_SECONDS SECONDS\n");
        return 2;
    }
    int tcp_port = atoi(argv[1]), tcp_count = atoi(argv[2]), http_port = atoi(argv[3]), http_count = atoi(argv[4]);
    double period = atof(argv[5]), lasts = atof(argv[6]);
    int count = tcp_count + http_count, epoll = epoll_create1(EPOLL_CLOEXEC);
    double begun = now(), half = 0, half_at = 0;
    long due = 0, answered = 0;
    for (;;) {
        double at = now() - begun;
        if (at >= lasts) break;
        if (at >= lasts / 2 && half_at == 0) {
            half = processor();
            half_at = at;
        }
        // Target n is due at n/count of each period.
        while ((double)due / count * period <= at) {
            uint32_t index = (uint32_t)(due % count);
            int http = index >= (uint32_t)tcp_count;
            ask(epoll, index, http ? http_port : tcp_port, http);
            due++;
        }
        struct epoll_event events[EVENTS];
        int ready = epoll_wait(epoll, events, EVENTS, 1);
        for (int index = 0; index < ready; index++) {
            int fd = events[index].data.fd, error = 0;
            if (!has_asked[fd]) {
                socklen_t length = sizeof error;
                getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &length);
                if (error == 0 && is_http[fd]) {
                    static const char request[] = "GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n";
                    if (write(fd, request, sizeof request - 1) > 0) {
                        has_asked[fd] = 1;
                        struct epoll_event next = {.events = EPOLLIN, .data.fd = fd};
                        epoll_ctl(epoll, EPOLL_CTL_MOD, fd, &next);
                        continue;
                    }
                }
                answered += error == 0 && !is_http[fd];
            } else {
                char answer[2048];
                ssize_t got = read(fd, answer, sizeof answer);
                answered += got > 12 && memcmp(answer, "HTTP/1.1 200", 12) == 0;
            }
            finish(fd);
        }
    }
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    double seconds = now() - begun - half_at;
    printf("{\"processor_share\": %.4f, \"resident_megabytes\": %.1f, \"answered\": %ld}\n",
           (processor() - half) / seconds, (double)usage.ru_maxrss / 1024, answered);
    return 0;
}
