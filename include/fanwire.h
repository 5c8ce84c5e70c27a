/*
 * fanwire.h: hand events to a Fanwire node from C99 or C++11. Header-only; needs POSIX sockets and nothing else.
 * The protocol is described in docs/publish-socket.md.
 *
 *     fanwire_publisher publisher;
 *     if (fanwire_open(&publisher, "127.0.0.1:8081", NULL) != FANWIRE_OK)
 *         fprintf(stderr, "%s\n", fanwire_error(&publisher));
 *     fanwire_event event = fanwire_event_text("run:42", "step_log", "{\"line\":\"hello\"}");
 *     event.flags = FANWIRE_ACK;
 *     fanwire_publish(&publisher, &event);
 *     fanwire_wait_ack(&publisher, fanwire_last_sequence(&publisher), 5000, NULL);
 *     fanwire_close(&publisher, 5000);
 *
 * RESULTS     Calls return FANWIRE_OK (0); a positive code where this call did nothing and the connection goes on;
 *             a negative code where the connection is over: call fanwire_close, then open anew.
 *             fanwire_error() says what the last failure was, also after fanwire_open and fanwire_close.
 * DELIVERY    FANWIRE_OK from a publish says that the event is on its way, not that the node has it. The node has it
 *             once an ACK covers it (flag FANWIRE_ACK), or once fanwire_close has returned FANWIRE_OK. After a
 *             negative code, events that no ACK covers may or may not have been published.
 * RECEIPTS    An event with the flag FANWIRE_RECEIPT is answered once more, when the node has flushed it to all who
 *             were to get it: how many those were, and what became of it. fanwire_wait_receipt waits for one;
 *             fanwire_poll gives them as they come. A place is kept for each from the publish on, so none is lost and
 *             none holds up other answers: with FANWIRE_MAX_RECEIPTS asked for and not read, one more is not taken,
 *             FANWIRE_ANSWERS_FULL. A program that wants one for every event reads where there is no place:
 *
 *                 while ((result = fanwire_publish(&publisher, &event)) == FANWIRE_ANSWERS_FULL)
 *                     if (fanwire_poll(&publisher, 5000, &answer) == FANWIRE_OK)
 *                         note(&answer);
 *
 *             and has the others from fanwire_poll after fanwire_close.
 * ONCE        After a negative code, events may be sent again without being published twice: give the publisher a
 *             name (options), number what it sends (`sequence` of an event) and keep what no ACK covers. Then
 *             fanwire_close, fanwire_open with the same name, and publish, under the same numbers and in their order,
 *             what is above the highest fanwire_acknowledged() so far; after that go on with new events. For its
 *             `idempotency_window` (2 minutes unless configured) after the newest event of a name the node
 *             acknowledges whatever is not above the highest number that it has accepted from it, without publishing
 *             it; receipts of those are all 0. So numbers of a name only rise, over all of its connections (a refused
 *             event that was mended gets a new one), and one connection at a time uses it. A node that was restarted
 *             remembers nothing.
 * MEMORY      fanwire_publisher is the caller's (about 24 KiB) and must not be copied or moved while open. What events
 *             point to is copied before a call returns. One heap buffer of at most `buffer_bytes`, or of one event's
 *             frame where that is larger, grows as needed; fanwire_close frees it.
 * THREADS     A publisher may be used by one thread at a time; different publishers are independent. No global state.
 * SIGNALS     No SIGPIPE (MSG_NOSIGNAL or SO_NOSIGPIPE); EINTR is handled: calls go on after a signal.
 * TIMEOUTS    Milliseconds; 0 asks without waiting, negative waits as long as it takes.
 * COMPILING   With -std=c99 on Linux, include this header first, or define _POSIX_C_SOURCE as 200809L.
 */
#ifndef FANWIRE_H
#define FANWIRE_H

/* Strict ISO C hides POSIX on Linux. Elsewhere, and with -std=gnu99 or in C++, this macro would hide things instead. */
#if defined(__linux__) && defined(__STRICT_ANSI__) && !defined(_POSIX_C_SOURCE) && !defined(_XOPEN_SOURCE) \
    && !defined(_DEFAULT_SOURCE) && !defined(_GNU_SOURCE)
#define _POSIX_C_SOURCE 200809L
#endif

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/types.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#if !defined(AI_NUMERICSERV) || !defined(CLOCK_MONOTONIC)
#error "fanwire.h needs POSIX.1-2008: include it before other headers, or define _POSIX_C_SOURCE as 200809L"
#endif

#ifdef __cplusplus
extern "C" {
#endif

/* What calls return. */
enum {
    FANWIRE_OK = 0,
    /* This call did nothing; the connection goes on. */
    FANWIRE_WOULD_BLOCK = 1,  /* the time was up: an event was not taken, or nothing came */
    FANWIRE_BUFFER_FULL = 2,  /* fanwire_batch: flush first */
    FANWIRE_ANSWERS_FULL = 3, /* FANWIRE_MAX_ANSWERS or FANWIRE_MAX_RECEIPTS: read some with fanwire_poll first */
    FANWIRE_REFUSED = 4,      /* the node refused an event with an ERROR */
    FANWIRE_INVALID = 5,      /* an argument is out of its limits; nothing was written */
    FANWIRE_NO_MEMORY = 6,
    FANWIRE_NO_RECEIPT = 7,   /* fanwire_close: receipts have not come */
    /* The connection is over. */
    FANWIRE_CLOSED = -1,  /* by the node (fanwire_error has its reason if it gave one) or by fanwire_close */
    FANWIRE_SYSTEM = -2,  /* a system call failed */
    FANWIRE_PROTOCOL = -3 /* what came is not the publish protocol */
};

/* Codes of ERROR answers. After those marked (closes) the node closes the connection. */
enum {
    FANWIRE_ERROR_MALFORMED = 1,     /* (closes) */
    FANWIRE_ERROR_UNSUPPORTED = 2,   /* (closes) version, kind or flag */
    FANWIRE_ERROR_UNAUTHORISED = 3,  /* (closes) */
    FANWIRE_ERROR_BAD_NAME = 4,      /* topic, event name or key */
    FANWIRE_ERROR_BAD_DATA = 5,      /* data is not one JSON text */
    FANWIRE_ERROR_TOO_LARGE = 6,     /* (closes) */
    FANWIRE_ERROR_SCHEMA = 7,
    FANWIRE_ERROR_NOT_PERMITTED = 8,
    FANWIRE_ERROR_SHUTTING_DOWN = 9  /* (closes) */
};

/* Kinds of answers. */
enum { FANWIRE_ANSWER_ACK = 3, FANWIRE_ANSWER_ERROR = 4, FANWIRE_ANSWER_PONG = 6, FANWIRE_ANSWER_RECEIPT = 7 };

/* Flags of an event. */
enum {
    FANWIRE_ACK = 1,    /* acknowledge when accepted */
    FANWIRE_RECEIPT = 2 /* tell how far it went */
};

/* Limits, in bytes where nothing else is said. */
enum {
    FANWIRE_MAX_NAME_BYTES = 255,    /* a topic, an event name, a key */
    FANWIRE_MAX_TOPICS = 16,         /* topics of one event */
    FANWIRE_MAX_TOPICS_BYTES = 4095, /* a topic list: 16 names and 15 separators */
    FANWIRE_MAX_PING_BYTES = 125,
    FANWIRE_MAX_TOKEN_BYTES = 8192,
    FANWIRE_MAX_PUBLISHER_NAME_BYTES = 64,
    FANWIRE_MAX_MESSAGE_BYTES = 255, /* kept of an ERROR's message; the rest is cut off */
    FANWIRE_MAX_ANSWERS = 32,        /* unread ERRORs and PONGs kept (count); ACKs take no place */
    FANWIRE_MAX_RECEIPTS = 256       /* receipts asked for and not read (count) */
};

/* How to connect. Start from fanwire_default_options(). */
typedef struct fanwire_options {
    const char *token;       /* bearer token; NULL or "" for none */
    const char *name;        /* this publisher's name, up to 64 bytes; NULL or "" for none. See ONCE above */
    int connect_timeout_ms;  /* 0: 5,000; negative: none. Resolving a host name is not counted */
    size_t buffer_bytes;     /* frames waiting to be written; 0: 1 MiB. An empty buffer takes one event of any size */
    size_t max_data_bytes;   /* `data` of one event; 0: 1 MiB, the node's default. Both limits: at most 1 GiB */
    uint64_t first_sequence; /* number of the first event; 0: 1. Events without one are numbered one by one */
} fanwire_options;

/* One event. Start from fanwire_event_text() or fanwire_event_bytes(). */
typedef struct fanwire_event {
    const char *topics;    /* 1 to 16 topic names joined by '\n'; the first is the event's category */
    const char *event;     /* the event's name */
    const char *key;       /* what the event is about; NULL or "" for none */
    const void *data;      /* one JSON text in UTF-8, not terminated */
    size_t data_length;    /* bytes of `data`; 0 stands for null */
    uint64_t timestamp_ms; /* Unix time in milliseconds; 0: the node stamps it */
    uint16_t flags;        /* FANWIRE_ACK | FANWIRE_RECEIPT, one of them, or 0 */
    uint64_t sequence;     /* its number, above those of all events taken before; 0: one above the last */
} fanwire_event;

/*
 * How far an event went, at the moment when it had been flushed to everybody: clients, by what became of it. Those that
 * none but `matched` counts went away by themselves. Of an event that was accepted before from this publisher's name
 * (see ONCE above) all are 0.
 */
typedef struct fanwire_receipt {
    uint64_t sequence; /* the event's */
    uint32_t matched;  /* it was for so many; each is counted once, whatever it is subscribed to */
    uint32_t written;  /* their kernel buffer has all of it */
    uint32_t queued;   /* it waits for them: in their queue, or in the history that they are served from */
    uint32_t left_out; /* left out for them by a policy: dropped or conflated */
    uint32_t closed;   /* closed as too slow with it in their queue */
} fanwire_receipt;

/* One answer of the node. */
typedef struct fanwire_answer {
    int kind;                /* FANWIRE_ANSWER_...; 0 where a call gave none */
    uint16_t code;           /* ERROR: FANWIRE_ERROR_... */
    uint64_t sequence;       /* ACK: of the newest accepted event; ERROR: of the refused one (0: HELLO); RECEIPT: of
                              * its event; PONG: 0 */
    uint64_t accepted;       /* ACK: events accepted on this connection so far */
    fanwire_receipt receipt; /* RECEIPT: how far the event went */
    size_t message_length;   /* bytes of `message` */
    char message[FANWIRE_MAX_MESSAGE_BYTES + 1]; /* ERROR: what is wrong; PONG: the ping's body; ends with a NUL */
} fanwire_answer;

/* One connection to a node. The fields are private. */
typedef struct fanwire_publisher {
    int fd;
    int status;  /* FANWIRE_OK, or why nothing can be written any more */
    int ended;   /* nothing more can be read */
    int closing; /* in fanwire_close: nobody reads answers now */
    int confirmed;
    unsigned writes; /* since answers were last taken in */
    size_t buffer_bytes, max_data_bytes;
    uint64_t sequence; /* of the event taken last */
    unsigned char *out; /* frames waiting: out[out_start..out_end] */
    size_t out_start, out_end, out_capacity;
    unsigned char in[4096]; /* bytes read and not yet understood */
    size_t in_length;
    uint32_t in_skip; /* bytes still to come of a frame whose beginning was enough */
    fanwire_answer answers[FANWIRE_MAX_ANSWERS]; /* ERRORs and PONGs, a ring */
    size_t answers_first, answers_count;
    uint64_t unread_errors; /* in the ring, or left out while closing */
    fanwire_receipt receipts[FANWIRE_MAX_RECEIPTS]; /* asked for and not read, a ring in the events' order */
    unsigned char receipts_here[FANWIRE_MAX_RECEIPTS]; /* whether each has come */
    size_t receipts_first, receipts_count, receipts_unread;
    int acknowledged, ack_unread;
    uint64_t ack_sequence, ack_accepted;
    char error[512];
} fanwire_publisher;

/* ---- Private ---------------------------------------------------------------------------------------------------- */

enum { FANWIRE_PRIV_HEADER = 16, FANWIRE_PRIV_PUBLISH = 16, FANWIRE_PRIV_RECEIPT = 20 };
enum { FANWIRE_PRIV_MAX_ANSWER = 1 << 20 };
/* Answers are taken in after so many writes even if nobody asks: a node whose answers are not read stops reading. */
enum { FANWIRE_PRIV_WRITES_PER_READ = 64 };
#define FANWIRE_PRIV_CLOSE_PING "fanwire_close"

#if defined(MSG_NOSIGNAL)
enum { FANWIRE_PRIV_SEND_FLAGS = MSG_NOSIGNAL };
#elif defined(SO_NOSIGPIPE)
enum { FANWIRE_PRIV_SEND_FLAGS = 0 };
#else
#error "fanwire.h needs MSG_NOSIGNAL or SO_NOSIGPIPE: do not restrict the headers with _POSIX_C_SOURCE here"
#endif

#if defined(__GNUC__)
__attribute__((format(printf, 3, 4)))
#endif
static inline int fanwire_priv_say(fanwire_publisher *p, int code, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    (void)vsnprintf(p->error, sizeof p->error, format, arguments);
    va_end(arguments);
    return code;
}

/* Why a call did nothing. Does not cover up why the connection is over. */
static inline int fanwire_priv_hint(fanwire_publisher *p, int code, const char *text) {
    return p->status == FANWIRE_OK ? fanwire_priv_say(p, code, "%s", text) : code;
}

/* The connection is over; the first reason is the one that is kept. */
static inline int fanwire_priv_over(fanwire_publisher *p, int status, const char *what, int error_number) {
    if (p->status == FANWIRE_OK) {
        p->status = status;
        if (error_number != 0)
            (void)fanwire_priv_say(p, status, "%s: %s", what, strerror(error_number));
        else
            (void)fanwire_priv_say(p, status, "%s", what);
    }
    return p->status;
}

static inline void fanwire_priv_put16(unsigned char *to, unsigned value) {
    to[0] = (unsigned char)(value & 0xff);
    to[1] = (unsigned char)(value >> 8 & 0xff);
}

static inline void fanwire_priv_put32(unsigned char *to, uint32_t value) {
    fanwire_priv_put16(to, (unsigned)(value & 0xffff));
    fanwire_priv_put16(to + 2, (unsigned)(value >> 16));
}

static inline void fanwire_priv_put64(unsigned char *to, uint64_t value) {
    fanwire_priv_put32(to, (uint32_t)(value & 0xffffffffu));
    fanwire_priv_put32(to + 4, (uint32_t)(value >> 32));
}

static inline uint16_t fanwire_priv_get16(const unsigned char *from) {
    return (uint16_t)(from[0] | (unsigned)from[1] << 8);
}

static inline uint32_t fanwire_priv_get32(const unsigned char *from) {
    return (uint32_t)fanwire_priv_get16(from) | (uint32_t)fanwire_priv_get16(from + 2) << 16;
}

static inline uint64_t fanwire_priv_get64(const unsigned char *from) {
    return (uint64_t)fanwire_priv_get32(from) | (uint64_t)fanwire_priv_get32(from + 4) << 32;
}

static inline int64_t fanwire_priv_now_ms(void) {
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* Negative: never. */
static inline int64_t fanwire_priv_deadline(int timeout_ms) {
    return timeout_ms < 0 ? -1 : timeout_ms == 0 ? 0 : fanwire_priv_now_ms() + timeout_ms;
}

/* Waits for one of `events`: OK, WOULD_BLOCK when the deadline has passed, or the connection is over. */
static inline int fanwire_priv_wait(fanwire_publisher *p, int events, int64_t deadline) {
    struct pollfd entry;
    entry.fd = p->fd;
    entry.events = (short)events;
    for (;;) {
        int64_t left = deadline < 0 ? -1 : deadline == 0 ? 0 : deadline - fanwire_priv_now_ms();
        int ready;
        if (deadline > 0 && left <= 0)
            return FANWIRE_WOULD_BLOCK;
        ready = poll(&entry, 1, left > INT_MAX ? INT_MAX : (int)left);
        if (ready > 0)
            return FANWIRE_OK;
        if (ready == 0 && deadline == 0)
            return FANWIRE_WOULD_BLOCK;
        if (ready < 0 && errno != EINTR && errno != EAGAIN) {
            p->ended = 1;
            return fanwire_priv_over(p, FANWIRE_SYSTEM, "poll", errno);
        }
    }
}

/* Keeps what fits of a text, cut between characters. */
static inline void fanwire_priv_keep_message(fanwire_answer *answer, const unsigned char *text, size_t length) {
    if (length > FANWIRE_MAX_MESSAGE_BYTES) {
        length = FANWIRE_MAX_MESSAGE_BYTES;
        while (length > 0 && (text[length] & 0xc0) == 0x80)
            length--;
    }
    if (length > 0)
        memcpy(answer->message, text, length);
    answer->message[length] = '\0';
    answer->message_length = length;
}

static inline int fanwire_priv_error_closes(unsigned code) {
    return code == FANWIRE_ERROR_MALFORMED || code == FANWIRE_ERROR_UNSUPPORTED
        || code == FANWIRE_ERROR_UNAUTHORISED || code == FANWIRE_ERROR_TOO_LARGE
        || code == FANWIRE_ERROR_SHUTTING_DOWN;
}

static inline void fanwire_priv_say_error(fanwire_publisher *p, const fanwire_answer *answer) {
    if (p->status == FANWIRE_OK)
        (void)fanwire_priv_say(p, FANWIRE_REFUSED, "the node refused event %llu: %s (error %u)",
            (unsigned long long)answer->sequence, answer->message, (unsigned)answer->code);
}

/* The place of an event's receipt, counted from the first one asked for; receipts_count where none is. */
static inline size_t fanwire_priv_find_receipt(const fanwire_publisher *p, uint64_t sequence) {
    size_t index = 0;
    while (index < p->receipts_count
        && p->receipts[(p->receipts_first + index) % FANWIRE_MAX_RECEIPTS].sequence != sequence)
        index++;
    return index;
}

/* Takes receipt number `index` out of the ring. */
static inline fanwire_receipt fanwire_priv_remove_receipt(fanwire_publisher *p, size_t index) {
    size_t at = (p->receipts_first + index) % FANWIRE_MAX_RECEIPTS;
    fanwire_receipt receipt = p->receipts[at];
    p->receipts_unread -= p->receipts_here[at];
    for (; index > 0; index--) {
        size_t before = (p->receipts_first + index - 1) % FANWIRE_MAX_RECEIPTS;
        p->receipts[at] = p->receipts[before];
        p->receipts_here[at] = p->receipts_here[before];
        at = before;
    }
    p->receipts_first = (p->receipts_first + 1) % FANWIRE_MAX_RECEIPTS;
    p->receipts_count--;
    return receipt;
}

/* One that nobody asked for is passed over. */
static inline void fanwire_priv_keep_receipt(fanwire_publisher *p, uint64_t sequence, const unsigned char *body) {
    size_t index = fanwire_priv_find_receipt(p, sequence), at = (p->receipts_first + index) % FANWIRE_MAX_RECEIPTS;
    if (index == p->receipts_count || p->receipts_here[at])
        return;
    p->receipts[at].matched = fanwire_priv_get32(body);
    p->receipts[at].written = fanwire_priv_get32(body + 4);
    p->receipts[at].queued = fanwire_priv_get32(body + 8);
    p->receipts[at].left_out = fanwire_priv_get32(body + 12);
    p->receipts[at].closed = fanwire_priv_get32(body + 16);
    p->receipts_here[at] = 1;
    p->receipts_unread++;
}

/* Understands what was read. Stops at an ERROR or PONG for which there is no place. */
static inline void fanwire_priv_parse(fanwire_publisher *p) {
    size_t at = 0;
    while (p->status != FANWIRE_PROTOCOL) {
        const unsigned char *frame = p->in + at, *body = frame + FANWIRE_PRIV_HEADER;
        size_t here = p->in_length - at, needed;
        uint32_t length;
        unsigned kind;
        if (p->in_skip > 0) {
            size_t skipped = here < p->in_skip ? here : p->in_skip;
            p->in_skip -= (uint32_t)skipped;
            at += skipped;
            if (p->in_skip > 0)
                break;
            continue;
        }
        if (here < FANWIRE_PRIV_HEADER)
            break;
        length = fanwire_priv_get32(frame);
        kind = frame[5];
        if (frame[4] != 1 || length > FANWIRE_PRIV_MAX_ANSWER || (kind == FANWIRE_ANSWER_ACK && length != 8)
            || (kind == FANWIRE_ANSWER_ERROR && length < 2)
            || (kind == FANWIRE_ANSWER_RECEIPT && length < FANWIRE_PRIV_RECEIPT)) {
            (void)fanwire_priv_over(p, FANWIRE_PROTOCOL, "what answers does not speak the publish protocol", 0);
            p->status = FANWIRE_PROTOCOL;
            p->ended = 1;
            break;
        }
        /* The code, the message that is kept, and one byte more to see where a character ends. */
        needed = length > FANWIRE_MAX_MESSAGE_BYTES + 3 ? FANWIRE_MAX_MESSAGE_BYTES + 3 : length;
        if (here < FANWIRE_PRIV_HEADER + needed)
            break;
        if (kind == FANWIRE_ANSWER_ACK) {
            p->acknowledged = p->ack_unread = 1;
            p->ack_sequence = fanwire_priv_get64(frame + 8);
            p->ack_accepted = fanwire_priv_get64(body);
        } else if (kind == FANWIRE_ANSWER_RECEIPT) {
            fanwire_priv_keep_receipt(p, fanwire_priv_get64(frame + 8), body);
        } else if (kind == FANWIRE_ANSWER_PONG && p->closing && length == sizeof FANWIRE_PRIV_CLOSE_PING - 1
            && memcmp(body, FANWIRE_PRIV_CLOSE_PING, length) == 0) {
            p->confirmed = 1;
        } else if (kind == FANWIRE_ANSWER_ERROR || kind == FANWIRE_ANSWER_PONG) {
            fanwire_answer answer;
            memset(&answer, 0, sizeof answer);
            answer.kind = (int)kind;
            if (p->answers_count == FANWIRE_MAX_ANSWERS && !p->closing)
                break;
            if (kind == FANWIRE_ANSWER_ERROR) {
                size_t receipt;
                answer.sequence = fanwire_priv_get64(frame + 8);
                answer.code = fanwire_priv_get16(body);
                fanwire_priv_keep_message(&answer, body + 2, needed - 2);
                p->unread_errors++;
                /* What is refused has no receipt. */
                receipt = fanwire_priv_find_receipt(p, answer.sequence);
                if (receipt < p->receipts_count)
                    (void)fanwire_priv_remove_receipt(p, receipt);
                if (fanwire_priv_error_closes(answer.code) && p->status == FANWIRE_OK) {
                    fanwire_priv_say_error(p, &answer);
                    p->status = FANWIRE_CLOSED;
                }
            } else {
                fanwire_priv_keep_message(&answer, body, needed);
            }
            if (p->answers_count < FANWIRE_MAX_ANSWERS) {
                p->answers[(p->answers_first + p->answers_count) % FANWIRE_MAX_ANSWERS] = answer;
                p->answers_count++;
            }
        } /* Other kinds come from nodes newer than this header, and are passed over. */
        at += FANWIRE_PRIV_HEADER + needed;
        p->in_skip = length - (uint32_t)needed;
    }
    if (at > 0) {
        p->in_length -= at;
        memmove(p->in, p->in + at, p->in_length);
    }
}

/* Reads once, without waiting: OK, WOULD_BLOCK, ANSWERS_FULL, or the connection is over. */
static inline int fanwire_priv_receive(fanwire_publisher *p) {
    p->writes = 0;
    fanwire_priv_parse(p);
    if (p->ended)
        return p->status;
    if (p->in_length == sizeof p->in)
        return fanwire_priv_hint(p, FANWIRE_ANSWERS_FULL, "unread answers of the node: read them with fanwire_poll");
    for (;;) {
        ssize_t got = recv(p->fd, p->in + p->in_length, sizeof p->in - p->in_length, 0);
        if (got > 0) {
            p->in_length += (size_t)got;
            fanwire_priv_parse(p);
            return FANWIRE_OK;
        }
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
            return FANWIRE_WOULD_BLOCK;
        p->ended = 1;
        if (got == 0)
            return fanwire_priv_over(p, FANWIRE_CLOSED, "the node closed the connection", 0);
        if (errno == ECONNRESET || errno == EPIPE)
            return fanwire_priv_over(p, FANWIRE_CLOSED, "the node closed the connection", errno);
        return fanwire_priv_over(p, FANWIRE_SYSTEM, "recv", errno);
    }
}

/* Writes what it can without waiting: OK when nothing is left, WOULD_BLOCK, or the connection is over. */
static inline int fanwire_priv_send(fanwire_publisher *p) {
    while (p->out_start < p->out_end) {
        ssize_t sent;
        if (p->status != FANWIRE_OK)
            return p->status;
        sent = send(p->fd, p->out + p->out_start, p->out_end - p->out_start, FANWIRE_PRIV_SEND_FLAGS);
        if (sent >= 0) {
            p->out_start += (size_t)sent;
        } else if (errno == EAGAIN || errno == EWOULDBLOCK) {
            return FANWIRE_WOULD_BLOCK;
        } else if (errno != EINTR) {
            int send_errno = errno;
            /* The node may have said why before it closed. */
            while (fanwire_priv_receive(p) == FANWIRE_OK)
                continue;
            if (send_errno == EPIPE || send_errno == ECONNRESET)
                return fanwire_priv_over(p, FANWIRE_CLOSED, "the node closed the connection", send_errno);
            return fanwire_priv_over(p, FANWIRE_SYSTEM, "send", send_errno);
        }
    }
    p->out_start = p->out_end = 0;
    return p->status;
}

/* Writes everything, taking in answers meanwhile: a node whose answers are not read would never read on. */
static inline int fanwire_priv_flush(fanwire_publisher *p, int64_t deadline) {
    if (p->out_start < p->out_end && ++p->writes >= FANWIRE_PRIV_WRITES_PER_READ) {
        while (fanwire_priv_receive(p) == FANWIRE_OK)
            continue;
    }
    for (;;) {
        int result = fanwire_priv_send(p);
        if (result != FANWIRE_WOULD_BLOCK)
            return result;
        result = fanwire_priv_receive(p);
        if (result < 0 || result == FANWIRE_ANSWERS_FULL)
            return result;
        if (result == FANWIRE_WOULD_BLOCK) {
            result = fanwire_priv_wait(p, POLLIN | POLLOUT, deadline);
            if (result == FANWIRE_WOULD_BLOCK)
                return fanwire_priv_say(p, result, "the node takes no more at the moment");
            if (result != FANWIRE_OK)
                return result;
        }
    }
}

/* A place for `length` bytes at the end of the buffer, or NULL. */
static inline unsigned char *fanwire_priv_append(fanwire_publisher *p, size_t length) {
    unsigned char *place;
    if (p->out_capacity - p->out_end < length && p->out_start > 0) {
        memmove(p->out, p->out + p->out_start, p->out_end - p->out_start);
        p->out_end -= p->out_start;
        p->out_start = 0;
    }
    if (p->out_capacity - p->out_end < length) {
        size_t needed = p->out_end + length, capacity = p->out_capacity < 2048 ? 4096 : p->out_capacity * 2;
        unsigned char *grown;
        if (capacity > p->buffer_bytes)
            capacity = p->buffer_bytes;
        if (capacity < needed)
            capacity = needed;
        grown = (unsigned char *)realloc(p->out, capacity);
        if (grown == NULL) {
            (void)fanwire_priv_say(p, FANWIRE_NO_MEMORY, "no memory for %lu bytes", (unsigned long)capacity);
            return NULL;
        }
        p->out = grown;
        p->out_capacity = capacity;
    }
    place = p->out + p->out_end;
    p->out_end += length;
    return place;
}

static inline void fanwire_priv_put_header(
    unsigned char *to, size_t body_length, unsigned kind, unsigned flags, uint64_t sequence) {
    fanwire_priv_put32(to, (uint32_t)body_length);
    to[4] = 1;
    to[5] = (unsigned char)kind;
    fanwire_priv_put16(to + 6, flags);
    fanwire_priv_put64(to + 8, sequence);
}

static inline unsigned char *fanwire_priv_put_bytes(unsigned char *to, const void *bytes, size_t length) {
    if (length > 0)
        memcpy(to, bytes, length);
    return to + length;
}

/* Never reads further than one byte past `most`. */
static inline size_t fanwire_priv_length(const char *text, size_t most) {
    size_t length = 0;
    while (text != NULL && length <= most && text[length] != '\0')
        length++;
    return length;
}

/* Checks an event's lengths and appends its frame. `wait` allows to flush first where there is no room. */
static inline int fanwire_priv_take(
    fanwire_publisher *p, const fanwire_event *event, int wait, int64_t deadline, size_t *frame_length) {
    const unsigned all_flags = FANWIRE_ACK | FANWIRE_RECEIPT;
    size_t topics, name, key, length;
    unsigned char *frame;
    if (p->status != FANWIRE_OK)
        return p->status;
    topics = fanwire_priv_length(event->topics, FANWIRE_MAX_TOPICS_BYTES);
    name = fanwire_priv_length(event->event, FANWIRE_MAX_NAME_BYTES);
    key = fanwire_priv_length(event->key, FANWIRE_MAX_NAME_BYTES);
    if (topics == 0 || topics > FANWIRE_MAX_TOPICS_BYTES)
        return fanwire_priv_say(p, FANWIRE_INVALID, "topics: a list has 1 to %d bytes", FANWIRE_MAX_TOPICS_BYTES);
    if (name == 0 || name > FANWIRE_MAX_NAME_BYTES)
        return fanwire_priv_say(p, FANWIRE_INVALID, "event: a name has 1 to %d bytes", FANWIRE_MAX_NAME_BYTES);
    if (key > FANWIRE_MAX_NAME_BYTES)
        return fanwire_priv_say(p, FANWIRE_INVALID, "key: at most %d bytes", FANWIRE_MAX_NAME_BYTES);
    if (event->data_length > p->max_data_bytes)
        return fanwire_priv_say(p, FANWIRE_INVALID, "data: %lu bytes, above the limit of %lu",
            (unsigned long)event->data_length, (unsigned long)p->max_data_bytes);
    if (event->data == NULL && event->data_length > 0)
        return fanwire_priv_say(
            p, FANWIRE_INVALID, "data: NULL with a length of %lu", (unsigned long)event->data_length);
    if ((event->flags & ~all_flags) != 0)
        return fanwire_priv_say(p, FANWIRE_INVALID,
            "flags: %u has bits other than FANWIRE_ACK and FANWIRE_RECEIPT", (unsigned)event->flags);
    if (event->sequence != 0 && event->sequence <= p->sequence)
        return fanwire_priv_say(p, FANWIRE_INVALID, "sequence: %llu is not above %llu, that of the last event",
            (unsigned long long)event->sequence, (unsigned long long)p->sequence);
    if ((event->flags & FANWIRE_RECEIPT) != 0 && p->receipts_count == FANWIRE_MAX_RECEIPTS)
        return fanwire_priv_say(p, FANWIRE_ANSWERS_FULL, "%d receipts were asked for: read some with fanwire_poll",
            FANWIRE_MAX_RECEIPTS);

    length = FANWIRE_PRIV_HEADER + FANWIRE_PRIV_PUBLISH + topics + name + key + event->data_length;
    if (p->out_start < p->out_end && p->out_end - p->out_start + length > p->buffer_bytes) {
        int flushed = wait ? fanwire_priv_flush(p, deadline)
                           : fanwire_priv_say(p, FANWIRE_BUFFER_FULL, "the buffer is full: flush it");
        if (flushed != FANWIRE_OK)
            return flushed;
    }
    frame = fanwire_priv_append(p, length);
    if (frame == NULL)
        return FANWIRE_NO_MEMORY;
    p->sequence = event->sequence != 0 ? event->sequence : p->sequence + 1;
    if ((event->flags & FANWIRE_RECEIPT) != 0) {
        size_t at = (p->receipts_first + p->receipts_count++) % FANWIRE_MAX_RECEIPTS;
        memset(&p->receipts[at], 0, sizeof p->receipts[at]);
        p->receipts[at].sequence = p->sequence;
        p->receipts_here[at] = 0;
    }
    fanwire_priv_put_header(frame, length - FANWIRE_PRIV_HEADER, 2, event->flags, p->sequence);
    frame += FANWIRE_PRIV_HEADER;
    fanwire_priv_put16(frame, (unsigned)topics);
    fanwire_priv_put16(frame + 2, (unsigned)name);
    fanwire_priv_put16(frame + 4, (unsigned)key);
    fanwire_priv_put16(frame + 6, 0);
    fanwire_priv_put64(frame + 8, event->timestamp_ms);
    frame = fanwire_priv_put_bytes(frame + FANWIRE_PRIV_PUBLISH, event->topics, topics);
    frame = fanwire_priv_put_bytes(frame, event->event, name);
    frame = fanwire_priv_put_bytes(frame, event->key, key);
    (void)fanwire_priv_put_bytes(frame, event->data, event->data_length);
    *frame_length = length;
    return FANWIRE_OK;
}

static inline int fanwire_priv_append_ping(fanwire_publisher *p, const void *body, size_t length) {
    unsigned char *frame = fanwire_priv_append(p, FANWIRE_PRIV_HEADER + length);
    if (frame == NULL)
        return FANWIRE_NO_MEMORY;
    fanwire_priv_put_header(frame, length, 5, 0, 0);
    (void)fanwire_priv_put_bytes(frame + FANWIRE_PRIV_HEADER, body, length);
    return FANWIRE_OK;
}

/* Takes answer number `index` out of the ring. */
static inline fanwire_answer fanwire_priv_remove(fanwire_publisher *p, size_t index) {
    fanwire_answer answer = p->answers[(p->answers_first + index) % FANWIRE_MAX_ANSWERS];
    for (; index > 0; index--) {
        p->answers[(p->answers_first + index) % FANWIRE_MAX_ANSWERS] =
            p->answers[(p->answers_first + index - 1) % FANWIRE_MAX_ANSWERS];
    }
    p->answers_first = (p->answers_first + 1) % FANWIRE_MAX_ANSWERS;
    p->answers_count--;
    if (answer.kind == FANWIRE_ANSWER_ERROR)
        p->unread_errors--;
    return answer;
}

static inline fanwire_answer fanwire_priv_ack(fanwire_publisher *p) {
    fanwire_answer answer;
    memset(&answer, 0, sizeof answer);
    answer.kind = FANWIRE_ANSWER_ACK;
    answer.sequence = p->ack_sequence;
    answer.accepted = p->ack_accepted;
    p->ack_unread = 0;
    return answer;
}

static inline fanwire_answer fanwire_priv_receipt(fanwire_publisher *p) {
    fanwire_answer answer;
    size_t index = 0;
    while (!p->receipts_here[(p->receipts_first + index) % FANWIRE_MAX_RECEIPTS])
        index++;
    memset(&answer, 0, sizeof answer);
    answer.kind = FANWIRE_ANSWER_RECEIPT;
    answer.receipt = fanwire_priv_remove_receipt(p, index);
    answer.sequence = answer.receipt.sequence;
    return answer;
}

/* Takes the ERROR about an event, if it waits. */
static inline int fanwire_priv_take_refusal(fanwire_publisher *p, uint64_t sequence, fanwire_answer *answer) {
    size_t index;
    for (index = 0; index < p->answers_count; index++) {
        const fanwire_answer *each = &p->answers[(p->answers_first + index) % FANWIRE_MAX_ANSWERS];
        if (each->kind == FANWIRE_ANSWER_ERROR && each->sequence == sequence) {
            fanwire_answer found = fanwire_priv_remove(p, index);
            fanwire_priv_say_error(p, &found);
            if (answer != NULL)
                *answer = found;
            return 1;
        }
    }
    return 0;
}

/* Moves bytes in both directions once, waiting until one of them is possible: OK, WOULD_BLOCK, ANSWERS_FULL or over. */
static inline int fanwire_priv_turn(fanwire_publisher *p, int64_t deadline) {
    int sent = fanwire_priv_send(p);
    int received = fanwire_priv_receive(p);
    if (received != FANWIRE_WOULD_BLOCK)
        return received;
    return fanwire_priv_wait(p, sent == FANWIRE_WOULD_BLOCK ? POLLIN | POLLOUT : POLLIN, deadline);
}

/* Connects one socket: OK, or a system error number. */
static inline int fanwire_priv_connect(
    fanwire_publisher *p, int family, const struct sockaddr *address, socklen_t length, int64_t deadline) {
    int one = 1, error = 0, flags, result;
    socklen_t error_length = sizeof error;
    p->fd = socket(family, SOCK_STREAM, 0);
    if (p->fd < 0)
        return errno;
    flags = fcntl(p->fd, F_GETFL);
    if (flags < 0 || fcntl(p->fd, F_SETFL, flags | O_NONBLOCK) < 0 || fcntl(p->fd, F_SETFD, FD_CLOEXEC) < 0)
        return errno;
    /* An event leaves at once; publishers that want fewer, larger writes have fanwire_batch. */
    if (family != AF_UNIX)
        (void)setsockopt(p->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
#ifdef SO_NOSIGPIPE
    (void)setsockopt(p->fd, SOL_SOCKET, SO_NOSIGPIPE, &one, sizeof one);
#endif
    while (connect(p->fd, address, length) != 0) {
        if (errno == EAGAIN && family == AF_UNIX) {
            /* The listener's queue is full, and on Linux nothing announces that there is room again. */
            int64_t soon = fanwire_priv_now_ms() + 10;
            struct pollfd none;
            if (deadline >= 0 && soon > deadline)
                return ETIMEDOUT;
            none.fd = -1;
            none.events = 0;
            (void)poll(&none, 1, 10);
            continue;
        }
        /* After EINTR the connection goes on being made, as after EINPROGRESS. */
        if (errno != EINPROGRESS && errno != EINTR)
            return errno;
        result = fanwire_priv_wait(p, POLLOUT, deadline);
        if (result == FANWIRE_WOULD_BLOCK)
            return ETIMEDOUT;
        if (result != FANWIRE_OK || getsockopt(p->fd, SOL_SOCKET, SO_ERROR, &error, &error_length) != 0)
            return errno != 0 ? errno : EIO;
        return error;
    }
    return 0;
}

static inline int fanwire_priv_connect_unix(fanwire_publisher *p, const char *path, int64_t deadline) {
    struct sockaddr_un address;
    size_t length = strlen(path);
    int error;
    if (length == 0 || length >= sizeof address.sun_path)
        return fanwire_priv_say(p, FANWIRE_INVALID, "unix:PATH: a path has 1 to %lu bytes",
            (unsigned long)(sizeof address.sun_path - 1));
    memset(&address, 0, sizeof address);
    address.sun_family = AF_UNIX;
    memcpy(address.sun_path, path, length + 1);
    error = fanwire_priv_connect(p, AF_UNIX, (const struct sockaddr *)&address, (socklen_t)sizeof address, deadline);
    if (error != 0)
        return fanwire_priv_say(p, FANWIRE_SYSTEM, "unix:%s: %s", path, strerror(error));
    return FANWIRE_OK;
}

static inline int fanwire_priv_connect_tcp(fanwire_publisher *p, const char *address, int64_t deadline) {
    char host[256];
    const char *colon = strrchr(address, ':'), *begin = address, *end = colon, *digit;
    struct addrinfo hints, *found = NULL, *each;
    int error;
    long port = 0;
    if (colon != NULL && address[0] == '[' && colon > address + 1 && colon[-1] == ']') {
        begin = address + 1;
        end = colon - 1;
    } else if (colon == NULL || memchr(address, ':', (size_t)(colon - address)) != NULL) {
        end = NULL;
    }
    if (end == NULL || end == begin || (size_t)(end - begin) >= sizeof host)
        return fanwire_priv_say(p, FANWIRE_INVALID, "\"%.200s\" is not HOST:PORT, [IPV6]:PORT or unix:PATH", address);
    for (digit = colon + 1; *digit >= '0' && *digit <= '9' && port <= 65535; digit++)
        port = port * 10 + (*digit - '0');
    if (*digit != '\0' || port < 1 || port > 65535)
        return fanwire_priv_say(p, FANWIRE_INVALID, "\"%.200s\": a port is a number from 1 to 65535", address);
    memcpy(host, begin, (size_t)(end - begin));
    host[end - begin] = '\0';

    memset(&hints, 0, sizeof hints);
    hints.ai_family = AF_UNSPEC;
    hints.ai_socktype = SOCK_STREAM;
    hints.ai_flags = AI_NUMERICSERV;
    error = getaddrinfo(host, colon + 1, &hints, &found);
    if (error != 0)
        return fanwire_priv_say(p, FANWIRE_SYSTEM, "%.200s: %s", address,
            error == EAI_SYSTEM ? strerror(errno) : gai_strerror(error));
    error = EHOSTUNREACH;
    for (each = found; each != NULL && error != 0; each = each->ai_next) {
        if (p->fd >= 0)
            (void)close(p->fd);
        p->fd = -1;
        error = fanwire_priv_connect(p, each->ai_family, each->ai_addr, (socklen_t)each->ai_addrlen, deadline);
    }
    freeaddrinfo(found);
    if (error != 0)
        return fanwire_priv_say(p, FANWIRE_SYSTEM, "%.200s: %s", address, strerror(error));
    return FANWIRE_OK;
}

static inline int fanwire_priv_hello(fanwire_publisher *p, const char *token, const char *name) {
    size_t token_length = fanwire_priv_length(token, FANWIRE_MAX_TOKEN_BYTES);
    size_t name_length = fanwire_priv_length(name, FANWIRE_MAX_PUBLISHER_NAME_BYTES);
    size_t body_length = 4 + token_length + name_length;
    unsigned char *frame;
    if (token_length + name_length == 0)
        return FANWIRE_OK;
    frame = fanwire_priv_append(p, FANWIRE_PRIV_HEADER + body_length);
    if (frame == NULL)
        return FANWIRE_NO_MEMORY;
    fanwire_priv_put_header(frame, body_length, 1, 0, 0);
    frame += FANWIRE_PRIV_HEADER;
    fanwire_priv_put16(frame, (unsigned)token_length);
    fanwire_priv_put16(frame + 2, (unsigned)name_length);
    frame = fanwire_priv_put_bytes(frame + 4, token, token_length);
    (void)fanwire_priv_put_bytes(frame, name, name_length);
    /* What does not go out at once goes before the first event. */
    return fanwire_priv_send(p) < 0 ? p->status : FANWIRE_OK;
}

/* ---- Public ----------------------------------------------------------------------------------------------------- */

/* Every option at its default. */
static inline fanwire_options fanwire_default_options(void) {
    fanwire_options options;
    memset(&options, 0, sizeof options);
    return options;
}

/* An event with `length` bytes of JSON at `data`, without key, timestamp and flags. Points to its arguments. */
static inline fanwire_event fanwire_event_bytes(
    const char *topics, const char *event, const void *data, size_t length) {
    fanwire_event made;
    memset(&made, 0, sizeof made);
    made.topics = topics;
    made.event = event;
    made.data = data;
    made.data_length = length;
    return made;
}

/* The same with JSON in a string that ends with a NUL. */
static inline fanwire_event fanwire_event_text(const char *topics, const char *event, const char *json) {
    return fanwire_event_bytes(topics, event, json, json == NULL ? 0 : strlen(json));
}

/*
 * Connects to "HOST:PORT", "[IPV6]:PORT" or "unix:PATH"; sends HELLO where a token or a name is given. `options` may
 * be NULL. A refused token shows at a later call, as ERROR 3. On failure `p` holds nothing but the error's text.
 */
static inline int fanwire_open(fanwire_publisher *p, const char *address, const fanwire_options *options) {
    fanwire_options chosen = options != NULL ? *options : fanwire_default_options();
    const size_t most = (size_t)1 << 30; /* sums and doublings of it stay within 32 bits */
    int result;
    memset(p, 0, sizeof *p);
    p->fd = -1;
    p->buffer_bytes = chosen.buffer_bytes != 0 ? chosen.buffer_bytes : (size_t)1 << 20;
    p->max_data_bytes = chosen.max_data_bytes != 0 ? chosen.max_data_bytes : (size_t)1 << 20;
    p->sequence = chosen.first_sequence != 0 ? chosen.first_sequence - 1 : 0;
    if (fanwire_priv_length(chosen.token, FANWIRE_MAX_TOKEN_BYTES) > FANWIRE_MAX_TOKEN_BYTES) {
        result = fanwire_priv_say(p, FANWIRE_INVALID, "token: at most %d bytes", FANWIRE_MAX_TOKEN_BYTES);
    } else if (fanwire_priv_length(chosen.name, FANWIRE_MAX_PUBLISHER_NAME_BYTES) > FANWIRE_MAX_PUBLISHER_NAME_BYTES) {
        result = fanwire_priv_say(p, FANWIRE_INVALID, "name: at most %d bytes", FANWIRE_MAX_PUBLISHER_NAME_BYTES);
    } else if (p->max_data_bytes > most || p->buffer_bytes > most) {
        result = fanwire_priv_say(p, FANWIRE_INVALID, "max_data_bytes, buffer_bytes: at most %lu", (unsigned long)most);
    } else {
        int64_t deadline = fanwire_priv_deadline(chosen.connect_timeout_ms == 0 ? 5000 : chosen.connect_timeout_ms);
        result = strncmp(address, "unix:", 5) == 0 ? fanwire_priv_connect_unix(p, address + 5, deadline)
                                                   : fanwire_priv_connect_tcp(p, address, deadline);
    }
    if (result == FANWIRE_OK)
        result = fanwire_priv_hello(p, chosen.token, chosen.name);
    if (result != FANWIRE_OK) {
        if (p->fd >= 0)
            (void)close(p->fd);
        free(p->out);
        p->out = NULL;
        p->out_start = p->out_end = p->out_capacity = 0;
        p->fd = -1;
        p->ended = 1;
        p->status = result < 0 ? result : FANWIRE_CLOSED;
    }
    return result;
}

/* What the last failure was. Valid until the next call with `p`. */
static inline const char *fanwire_error(const fanwire_publisher *p) {
    return p->error;
}

/* The number of the event taken last; 0 (or first_sequence - 1) before the first one. */
static inline uint64_t fanwire_last_sequence(const fanwire_publisher *p) {
    return p->sequence;
}

/*
 * The `sequence` of the newest ACK that has come; 0 before the first one. The node has dealt with every event up to
 * it. Also after fanwire_close: after a lost connection, what is above it may have to be sent again.
 */
static inline uint64_t fanwire_acknowledged(const fanwire_publisher *p) {
    return p->ack_sequence;
}

/* Bytes that were taken and not yet written. */
static inline size_t fanwire_pending(const fanwire_publisher *p) {
    return p->out_end - p->out_start;
}

/*
 * The socket, for an event loop: when it is readable call fanwire_poll, when it is writable and fanwire_pending() is
 * not 0 call fanwire_flush_within(p, 0). Non-blocking; only to be waited on. -1 when closed.
 */
static inline int fanwire_fd(const fanwire_publisher *p) {
    return p->fd;
}

/*
 * Writes an event, after everything taken before it, waiting `timeout_ms` at most. Whole or not at all: with
 * FANWIRE_OK the event is taken (what the socket did not take of a begun frame goes out first in the next call), with
 * a positive code it is not. Lengths are checked here; characters of names and the JSON by the node, which answers
 * ERROR 4 or 5.
 */
static inline int fanwire_publish_within(fanwire_publisher *p, const fanwire_event *event, int timeout_ms) {
    int64_t deadline = fanwire_priv_deadline(timeout_ms);
    uint64_t before = p->sequence;
    size_t length = 0, frame_start;
    int result = fanwire_priv_take(p, event, 1, deadline, &length);
    if (result != FANWIRE_OK)
        return result;
    frame_start = p->out_end - length;
    result = fanwire_priv_flush(p, deadline);
    if (result <= 0)
        return result;
    if (p->out_start > frame_start)
        return FANWIRE_OK;
    p->out_end = frame_start;
    p->sequence = before;
    if ((event->flags & FANWIRE_RECEIPT) != 0)
        p->receipts_count--; /* Its place is the newest one. */
    return result;
}

/* Writes an event, waiting for as long as the node takes nothing: a publisher is slowed, its events are not dropped. */
static inline int fanwire_publish(fanwire_publisher *p, const fanwire_event *event) {
    return fanwire_publish_within(p, event, -1);
}

/* Writes an event if that is possible at once, else FANWIRE_WOULD_BLOCK. */
static inline int fanwire_try_publish(fanwire_publisher *p, const fanwire_event *event) {
    return fanwire_publish_within(p, event, 0);
}

/* Takes an event into the buffer without a system call. FANWIRE_BUFFER_FULL: not taken, flush first. */
static inline int fanwire_batch(fanwire_publisher *p, const fanwire_event *event) {
    size_t length;
    return fanwire_priv_take(p, event, 0, 0, &length);
}

/* Writes what was taken, waiting `timeout_ms` at most; FANWIRE_WOULD_BLOCK where something is left. */
static inline int fanwire_flush_within(fanwire_publisher *p, int timeout_ms) {
    return p->status != FANWIRE_OK ? p->status : fanwire_priv_flush(p, fanwire_priv_deadline(timeout_ms));
}

/* Writes what was taken. */
static inline int fanwire_flush(fanwire_publisher *p) {
    return fanwire_flush_within(p, -1);
}

/* Asks for a PONG with the same body (up to 125 bytes): the node has then dealt with everything taken before. */
static inline int fanwire_ping(fanwire_publisher *p, const void *body, size_t length) {
    int result;
    if (p->status != FANWIRE_OK)
        return p->status;
    if (length > FANWIRE_MAX_PING_BYTES)
        return fanwire_priv_say(p, FANWIRE_INVALID, "a ping's body has at most %d bytes", FANWIRE_MAX_PING_BYTES);
    result = fanwire_priv_append_ping(p, body, length);
    if (result == FANWIRE_OK)
        result = fanwire_priv_flush(p, -1);
    return result;
}

/*
 * Gives the node's next answer, waiting `timeout_ms` at most; writes what was taken meanwhile. FANWIRE_WOULD_BLOCK:
 * none came. A negative code: none will come; answers that came before are given first, also after fanwire_close.
 *
 * ACKs are cumulative: only the newest unread one is kept, and ERRORs are given before it. So an event up to the ACK's
 * `sequence` that had no ERROR before this ACK has been accepted. Of receipts that have come, the one of the earliest
 * event is given.
 */
static inline int fanwire_poll(fanwire_publisher *p, int timeout_ms, fanwire_answer *answer) {
    int64_t deadline = fanwire_priv_deadline(timeout_ms);
    memset(answer, 0, sizeof *answer);
    for (;;) {
        fanwire_priv_parse(p);
        if (p->answers_count > 0) {
            *answer = fanwire_priv_remove(p, 0);
            return FANWIRE_OK;
        }
        if (p->receipts_unread > 0) {
            *answer = fanwire_priv_receipt(p);
            return FANWIRE_OK;
        }
        if (p->ack_unread) {
            *answer = fanwire_priv_ack(p);
            return FANWIRE_OK;
        }
        if (p->ended)
            return p->status;
        if (fanwire_priv_turn(p, deadline) == FANWIRE_WOULD_BLOCK)
            return fanwire_priv_hint(p, FANWIRE_WOULD_BLOCK, "no answer has come");
    }
}

/*
 * Waits until event `sequence` is accepted (FANWIRE_OK) or refused (FANWIRE_REFUSED). That event, or a later one, must
 * have had the flag FANWIRE_ACK. `answer`, which may be NULL, gets the ACK or the ERROR; answers about other events
 * stay for fanwire_poll. Not for events whose ERROR was already read with fanwire_poll.
 */
static inline int fanwire_wait_ack(
    fanwire_publisher *p, uint64_t sequence, int timeout_ms, fanwire_answer *answer) {
    int64_t deadline = fanwire_priv_deadline(timeout_ms);
    if (answer != NULL)
        memset(answer, 0, sizeof *answer);
    if (sequence > p->sequence)
        return fanwire_priv_say(p, FANWIRE_INVALID, "event %llu was not taken yet", (unsigned long long)sequence);
    for (;;) {
        int result;
        if (fanwire_priv_take_refusal(p, sequence, answer))
            return FANWIRE_REFUSED;
        if (p->acknowledged && p->ack_sequence >= sequence) {
            fanwire_answer found = fanwire_priv_ack(p);
            if (answer != NULL)
                *answer = found;
            return FANWIRE_OK;
        }
        if (p->ended && p->status != FANWIRE_OK)
            return p->status;
        result = fanwire_priv_turn(p, deadline);
        if (result == FANWIRE_WOULD_BLOCK)
            return fanwire_priv_hint(p, result, "no acknowledgement has come");
        if (result == FANWIRE_ANSWERS_FULL)
            return result;
    }
}

/*
 * Waits for the receipt of event `sequence`, which must have had the flag FANWIRE_RECEIPT. FANWIRE_OK: it is in
 * `receipt`, which may be NULL, and is not given again. FANWIRE_REFUSED: the node refused the event, fanwire_error says
 * why. FANWIRE_INVALID: none was asked for, or it was read. Other answers stay for fanwire_poll. After a negative code
 * no more receipts come; an event without one may have been published.
 */
static inline int fanwire_wait_receipt(
    fanwire_publisher *p, uint64_t sequence, int timeout_ms, fanwire_receipt *receipt) {
    int64_t deadline = fanwire_priv_deadline(timeout_ms);
    if (receipt != NULL)
        memset(receipt, 0, sizeof *receipt);
    for (;;) {
        size_t index;
        int result;
        if (fanwire_priv_take_refusal(p, sequence, NULL))
            return FANWIRE_REFUSED;
        index = fanwire_priv_find_receipt(p, sequence);
        if (index == p->receipts_count)
            return fanwire_priv_say(
                p, FANWIRE_INVALID, "event %llu waits for no receipt", (unsigned long long)sequence);
        if (p->receipts_here[(p->receipts_first + index) % FANWIRE_MAX_RECEIPTS]) {
            fanwire_receipt found = fanwire_priv_remove_receipt(p, index);
            if (receipt != NULL)
                *receipt = found;
            return FANWIRE_OK;
        }
        if (p->ended && p->status != FANWIRE_OK)
            return p->status;
        result = fanwire_priv_turn(p, deadline);
        if (result == FANWIRE_WOULD_BLOCK)
            return fanwire_priv_hint(p, result, "no receipt has come");
        if (result == FANWIRE_ANSWERS_FULL)
            return result;
    }
}

/*
 * Writes what was taken, waits until the node has dealt with it and all receipts have come, and closes. Call it once
 * for every successful open, also after a negative code. Waits `timeout_ms` at most. Receipts that were not read can
 * still be, with fanwire_poll.
 *
 * FANWIRE_OK           the node has dealt with every event, and every ERROR it answered was read.
 * FANWIRE_REFUSED      the same, but ERRORs were not read; the first 32 can still be, with fanwire_poll.
 * FANWIRE_NO_RECEIPT   the node has dealt with every event, but receipts that were asked for have not come in time.
 * FANWIRE_WOULD_BLOCK  the time was up first; the last events may be lost.
 * negative             the connection was over before; events without an ACK may be lost.
 */
static inline int fanwire_close(fanwire_publisher *p, int timeout_ms) {
    int64_t deadline = fanwire_priv_deadline(timeout_ms);
    int result = p->status;
    if (p->fd < 0)
        return result;
    p->closing = 1;
    if (result == FANWIRE_OK) {
        /* The node answers in order: its PONG says that it has dealt with everything before. */
        result = fanwire_priv_append_ping(p, FANWIRE_PRIV_CLOSE_PING, sizeof FANWIRE_PRIV_CLOSE_PING - 1);
        while (result == FANWIRE_OK && !p->confirmed && !p->ended)
            result = fanwire_priv_turn(p, deadline);
        if (p->confirmed)
            result = FANWIRE_OK;
        else if (result == FANWIRE_OK || p->status != FANWIRE_OK)
            result = p->status;
        else if (result == FANWIRE_WOULD_BLOCK)
            (void)fanwire_priv_say(p, result, "closed before the node had dealt with every event");
    }
    /* Closing a socket with unread bytes resets it: read until the node has closed its side. */
    if (result != FANWIRE_WOULD_BLOCK && !p->ended) {
        (void)shutdown(p->fd, SHUT_WR);
        while (!p->ended && fanwire_priv_turn(p, deadline) != FANWIRE_WOULD_BLOCK)
            continue;
    }
    (void)close(p->fd);
    free(p->out);
    p->out = NULL;
    p->out_start = p->out_end = p->out_capacity = 0;
    p->fd = -1;
    p->ended = 1;
    if (p->status == FANWIRE_OK)
        p->status = FANWIRE_CLOSED;
    if (result == FANWIRE_OK)
        p->error[0] = '\0';
    if (result == FANWIRE_OK && p->unread_errors > 0)
        result = fanwire_priv_say(p, FANWIRE_REFUSED, "the node refused %llu events, and the errors were not read",
            (unsigned long long)p->unread_errors);
    if (result == FANWIRE_OK && p->receipts_count > p->receipts_unread)
        result = fanwire_priv_say(p, FANWIRE_NO_RECEIPT, "%lu receipts have not come",
            (unsigned long)(p->receipts_count - p->receipts_unread));
    return result;
}

#ifdef __cplusplus
}
#endif

#endif
