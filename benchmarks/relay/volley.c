/* Sends the same bytes on many connections again and again, each time when the answer to the last
 * ones is whole, and counts. What wrk is for HTTP, for anything whose answers have a known size.
 *
 * volley PORT CONNECTIONS SECONDS ANSWER_SIZE OPENING REQUEST
 *
 * OPENING and REQUEST are files; an opening that is not empty is answered by a head that ends with
 * an empty line. Prints one JSON document; latencies are in microseconds.
 */

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define BUCKETS 2000000 /* of one microsecond */

struct connection {
    int descriptor;
    long missing; /* bytes of the answer */
    double sent;
};

static unsigned counts[BUCKETS];

static double now(void) {
    struct timespec moment;
    clock_gettime(CLOCK_MONOTONIC, &moment);
    return moment.tv_sec + moment.tv_nsec / 1e9;
}

static void fail(const char *what) {
    perror(what);
    exit(1);
}

static size_t load(const char *path, char *buffer, size_t size) {
    FILE *file = fopen(path, "rb");
    if (!file) fail(path);
    size_t length = fread(buffer, 1, size, file);
    fclose(file);
    return length;
}

static int dial(int port, const char *opening, size_t length) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int descriptor = socket(AF_INET, SOCK_STREAM, 0), on = 1;
    struct timeval patience = {.tv_sec = 10};
    setsockopt(descriptor, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    setsockopt(descriptor, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    if (connect(descriptor, (struct sockaddr *)&address, sizeof address)) fail("connect");
    if (!length) return descriptor;
    if (send(descriptor, opening, length, MSG_NOSIGNAL) != (ssize_t)length) fail("send");
    char last[4] = "";
    while (memcmp(last, "\r\n\r\n", 4)) {
        memmove(last, last + 1, 3);
        if (recv(descriptor, last + 3, 1, 0) != 1) fail("opening");
    }
    return descriptor;
}

static double quantile(double share, unsigned long total) {
    unsigned long seen = 0;
    for (long place = 0; place < BUCKETS; place++) {
        seen += counts[place];
        if (seen && seen >= share * total) return place;
    }
    return BUCKETS;
}

int main(int argc, char **argv) {
    if (argc != 7) {
        fprintf(stderr, "volley PORT CONNECTIONS SECONDS ANSWER_SIZE OPENING REQUEST\n");
        return 2;
    }
    static char opening[65536], request[65536], answer[1 << 20];
    int port = atoi(argv[1]), number = atoi(argv[2]);
    double seconds = atof(argv[3]);
    long size = atol(argv[4]);
    size_t opening_length = load(argv[5], opening, sizeof opening);
    size_t request_length = load(argv[6], request, sizeof request);
    struct connection *connections = calloc(number, sizeof *connections);
    int poll = epoll_create1(0), open = number;
    for (int place = 0; place < number; place++) {
        struct connection *each = &connections[place];
        each->descriptor = dial(port, opening, opening_length);
        struct epoll_event wanted = {.events = EPOLLIN, .data.ptr = each};
        epoll_ctl(poll, EPOLL_CTL_ADD, each->descriptor, &wanted);
    }
    unsigned long answers = 0, failed = 0;
    double begun = now(), end = begun + seconds, moment = begun;
    for (int place = 0; place < number; place++) {
        struct connection *each = &connections[place];
        each->missing = size;
        each->sent = now();
        if (send(each->descriptor, request, request_length, MSG_NOSIGNAL) < 0) fail("send");
    }
    struct epoll_event events[256];
    while (open && (moment = now()) < end) {
        int ready = epoll_wait(poll, events, 256, 100);
        for (int place = 0; place < ready; place++) {
            struct connection *each = events[place].data.ptr;
            ssize_t got = recv(each->descriptor, answer, sizeof answer, MSG_DONTWAIT);
            if (got < 0 && (errno == EAGAIN || errno == EINTR)) continue;
            if (got > 0) each->missing -= got;
            if (got <= 0 || each->missing < 0) { /* closed, or not the answer that was expected */
                failed++;
                open--;
                close(each->descriptor);
                continue;
            }
            if (each->missing) continue;
            double done = now();
            long bucket = (done - each->sent) * 1e6;
            counts[bucket < BUCKETS ? bucket : BUCKETS - 1]++;
            answers++;
            each->missing = size;
            each->sent = done;
            if (send(each->descriptor, request, request_length, MSG_NOSIGNAL) < 0) {
                failed++;
                open--;
                close(each->descriptor);
            }
        }
    }
    struct rusage used;
    getrusage(RUSAGE_SELF, &used);
    printf("{\"answers\": %lu, \"failed\": %lu, \"seconds\": %.6f, \"processor\": %.6f, "
           "\"p50\": %.0f, \"p99\": %.0f}\n",
           answers, failed, moment - begun,
           used.ru_utime.tv_sec + used.ru_stime.tv_sec +
               (used.ru_utime.tv_usec + used.ru_stime.tv_usec) / 1e6,
           quantile(0.5, answers), quantile(0.99, answers));
    return 0;
}
