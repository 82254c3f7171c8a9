/* A bare TCP relay: the floor under every proxy's cost. One thread, epoll, each chunk of bytes read
 * once and written once, nothing understood. One server connection for each client.
 *
 *   relay LISTEN_PORT SERVER_PORT        (both on 127.0.0.1)
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

enum { CHUNK = 16384, EVENTS = 256 };

struct pair;

/* One socket of a pair. `kept` is what its peer sent and it could not take yet. */
struct side {
    struct pair *pair;
    struct side *peer;
    int fd;
    uint32_t watched;
    char *kept;
    int kept_at, kept_end;
};

struct pair {
    struct side sides[2];
    int closed;
    struct pair *next_closed;
};

static int poller;
static struct pair *closed_pairs;
static char chunk[CHUNK];

static void close_pair(struct pair *pair) {
    if (pair->closed) return;
    pair->closed = 1;
    for (int i = 0; i < 2; i++) {
        close(pair->sides[i].fd);
        free(pair->sides[i].kept);
    }
    pair->next_closed = closed_pairs;
    closed_pairs = pair;
}

static void watch(struct side *side, uint32_t events) {
    if (side->watched == events) return;
    struct epoll_event event = {.events = events, .data.ptr = side};
    epoll_ctl(poller, EPOLL_CTL_MOD, side->fd, &event);
    side->watched = events;
}

static void on_readable(struct side *side) {
    ssize_t got = recv(side->fd, chunk, CHUNK, 0);
    if (got < 0 && errno == EAGAIN) return;
    if (got <= 0) {
        close_pair(side->pair);
        return;
    }
    ssize_t sent = send(side->peer->fd, chunk, got, MSG_NOSIGNAL);
    if (sent < 0) {
        if (errno != EAGAIN) {
            close_pair(side->pair);
            return;
        }
        sent = 0;
    }
    if (sent == got) return;
    /* The peer is slow: keep the rest, and read no more until it is gone. */
    side->peer->kept = malloc(got - sent);
    if (!side->peer->kept) {
        close_pair(side->pair);
        return;
    }
    memcpy(side->peer->kept, chunk + sent, got - sent);
    side->peer->kept_at = 0;
    side->peer->kept_end = got - sent;
    watch(side->peer, side->peer->watched | EPOLLOUT);
    watch(side, side->watched & ~EPOLLIN);
}

static void on_writable(struct side *side) {
    if (side->kept) {
        ssize_t sent = send(side->fd, side->kept + side->kept_at, side->kept_end - side->kept_at, MSG_NOSIGNAL);
        if (sent < 0) {
            if (errno != EAGAIN) close_pair(side->pair);
            return;
        }
        side->kept_at += sent;
        if (side->kept_at < side->kept_end) return;
        free(side->kept);
        side->kept = NULL;
    }
    watch(side, side->watched & ~EPOLLOUT);
    watch(side->peer, side->peer->watched | EPOLLIN);
}

static void accept_all(int listener, struct sockaddr_in server) {
    int one = 1;
    for (;;) {
        int client = accept4(listener, NULL, NULL, SOCK_NONBLOCK);
        if (client < 0) return;
        int upstream = socket(AF_INET, SOCK_STREAM, 0);
        if (upstream < 0 || connect(upstream, (struct sockaddr *)&server, sizeof server) < 0) {
            close(client);
            if (upstream >= 0) close(upstream);
            continue;
        }
        fcntl(upstream, F_SETFL, O_NONBLOCK);
        setsockopt(client, SOL_TCP, TCP_NODELAY, &one, sizeof one);
        setsockopt(upstream, SOL_TCP, TCP_NODELAY, &one, sizeof one);
        struct pair *pair = calloc(1, sizeof *pair);
        int fds[2] = {client, upstream};
        for (int i = 0; i < 2; i++) {
            pair->sides[i] = (struct side){.pair = pair, .peer = &pair->sides[!i], .fd = fds[i], .watched = EPOLLIN};
            struct epoll_event event = {.events = EPOLLIN, .data.ptr = &pair->sides[i]};
            epoll_ctl(poller, EPOLL_CTL_ADD, fds[i], &event);
        }
    }
}

static void on_event(struct side *side, uint32_t events) {
    if (side->pair->closed) return;
    if (events & (EPOLLHUP | EPOLLERR) && !(side->watched & EPOLLIN)) {
        close_pair(side->pair);
        return;
    }
    if (events & (EPOLLIN | EPOLLHUP | EPOLLERR) && side->watched & EPOLLIN) on_readable(side);
    if (!side->pair->closed && events & EPOLLOUT) on_writable(side);
}

int main(int argc, char **argv) {
    if (argc != 3) {
        fprintf(stderr, "usage: relay LISTEN_PORT SERVER_PORT\n");
        return 2;
    }
    struct rlimit files;
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);

    struct sockaddr_in here = {.sin_family = AF_INET, .sin_port = htons(atoi(argv[1]))};
    struct sockaddr_in server = {.sin_family = AF_INET, .sin_port = htons(atoi(argv[2]))};
    here.sin_addr.s_addr = server.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int one = 1, listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(listener, (struct sockaddr *)&here, sizeof here) < 0 || listen(listener, 1024) < 0) {
        perror("relay");
        return 1;
    }
    poller = epoll_create1(0);
    struct epoll_event accepting = {.events = EPOLLIN, .data.ptr = NULL}, events[EVENTS];
    epoll_ctl(poller, EPOLL_CTL_ADD, listener, &accepting);
    for (;;) {
        int ready = epoll_wait(poller, events, EVENTS, -1);
        for (int i = 0; i < ready; i++) {
            struct side *side = events[i].data.ptr;
            if (side) on_event(side, events[i].events);
            else accept_all(listener, server);
        }
        /* Freed only now: a later event of this round may still have named them. */
        while (closed_pairs) {
            struct pair *pair = closed_pairs;
            closed_pairs = pair->next_closed;
            free(pair);
        }
    }
}
