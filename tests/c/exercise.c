/*
 * Exercises include/fanwire.h against a live node: exercise ADDRESS TOPIC NODE_PID
 * tests/c_header.rs compiles and runs it and checks what subscribers of TOPIC receive.
 */
#include "fanwire.h"

#include <signal.h>

#define WAIT_MS 20000
#define CHECK(condition)                                                                                    \
    do {                                                                                                    \
        if (!(condition)) {                                                                                 \
            fprintf(stderr, "%s:%d: not true: %s\n  last error: %s\n", __FILE__, __LINE__, #condition,      \
                fanwire_error(&publisher));                                                                 \
            exit(1);                                                                                        \
        }                                                                                                   \
    } while (0)

static char text[1 << 21];

static fanwire_event event_on(const char *topic, const char *name, const char *json) {
    fanwire_event event = fanwire_event_text(topic, name, json);
    event.flags = FANWIRE_ACK;
    return event;
}

static void addresses_that_cannot_be_opened(void) {
    static const char *const invalid[] = {"", "localhost", ":8081", "::1:8081", "[::1]", "127.0.0.1:", "127.0.0.1:0",
        "127.0.0.1:65536", "127.0.0.1:80x", "unix:"};
    fanwire_publisher publisher;
    fanwire_options options = fanwire_default_options();
    fanwire_event event = event_on("t", "e", "1");
    fanwire_answer answer;
    size_t i;
    for (i = 0; i < sizeof invalid / sizeof *invalid; i++) {
        CHECK(fanwire_open(&publisher, invalid[i], NULL) == FANWIRE_INVALID);
        CHECK(fanwire_error(&publisher)[0] != '\0');
    }
    memset(text, 'p', 200);
    memcpy(text, "unix:", 5);
    text[200] = '\0';
    CHECK(fanwire_open(&publisher, text, NULL) == FANWIRE_INVALID);
    text[5 + 65] = '\0';
    options.name = text + 5;
    CHECK(fanwire_open(&publisher, "127.0.0.1:1", &options) == FANWIRE_INVALID);
    CHECK(fanwire_open(&publisher, "unix:/nonexistent/fanwire.sock", NULL) == FANWIRE_SYSTEM);
    CHECK(strstr(fanwire_error(&publisher), "/nonexistent/fanwire.sock") != NULL);
    /* What failed to open may be used, and says again that it is not open. */
    CHECK(fanwire_publish(&publisher, &event) == FANWIRE_SYSTEM);
    CHECK(fanwire_poll(&publisher, -1, &answer) == FANWIRE_SYSTEM);
    CHECK(fanwire_close(&publisher, 0) == FANWIRE_SYSTEM);
}

static void out_of_limits(fanwire_publisher *at) {
#define publisher (*at)
    fanwire_event good = event_on("t", "e", "1"), event;
    uint64_t before = fanwire_last_sequence(at);
    memset(text, 'x', 5000);
    text[4096] = '\0';
    event = good, event.topics = text;
    CHECK(fanwire_publish(at, &event) == FANWIRE_INVALID);
    event.topics = "";
    CHECK(fanwire_publish(at, &event) == FANWIRE_INVALID);
    event.topics = NULL;
    CHECK(fanwire_publish(at, &event) == FANWIRE_INVALID);
    text[256] = '\0';
    event = good, event.event = text;
    CHECK(fanwire_publish(at, &event) == FANWIRE_INVALID);
    event = good, event.key = text;
    CHECK(fanwire_batch(at, &event) == FANWIRE_INVALID);
    event = good, event.flags = 4;
    CHECK(fanwire_try_publish(at, &event) == FANWIRE_INVALID);
    event = good, event.sequence = before;
    CHECK(fanwire_publish(at, &event) == FANWIRE_INVALID);
    event = good, event.data_length = (1 << 20) + 1;
    CHECK(fanwire_publish(at, &event) == FANWIRE_INVALID);
    event = good, event.data = NULL;
    CHECK(fanwire_publish(at, &event) == FANWIRE_INVALID);
    CHECK(fanwire_ping(at, text, 126) == FANWIRE_INVALID);
    CHECK(fanwire_wait_ack(at, before + 1, 0, NULL) == FANWIRE_INVALID);
    CHECK(fanwire_wait_receipt(at, before, 0, NULL) == FANWIRE_INVALID);
    CHECK(fanwire_wait_receipt(at, before + 1, 0, NULL) == FANWIRE_INVALID);
    CHECK(fanwire_last_sequence(at) == before && fanwire_pending(at) == 0);
#undef publisher
}

/* The events that subscribers of `topic` are to receive: plain, batch-0 to batch-99, after-refusals. */
static void everything(const char *address, const char *topic) {
    fanwire_publisher publisher;
    fanwire_options options = fanwire_default_options();
    fanwire_event event;
    fanwire_answer answer;
    char topics[300], data[64];
    uint64_t refused;
    int i, next;

    options.name = topic; /* What one name published, another may. */
    options.first_sequence = 1000;
    CHECK(fanwire_open(&publisher, address, &options) == FANWIRE_OK);
    CHECK(fanwire_fd(&publisher) >= 0 && fanwire_last_sequence(&publisher) == 999);
    CHECK(fanwire_poll(&publisher, 0, &answer) == FANWIRE_WOULD_BLOCK);

    (void)snprintf(topics, sizeof topics, "%s\n%s-too", topic, topic);
    event = event_on(topics, "plain", "{\"text\" : \"gr\xc3\xbc\xc3\x9f\", \"big\": 1e400}");
    event.key = "key-1";
    event.timestamp_ms = 1705313700123;
    CHECK(fanwire_publish(&publisher, &event) == FANWIRE_OK);
    CHECK(fanwire_wait_ack(&publisher, 1000, WAIT_MS, &answer) == FANWIRE_OK);
    CHECK(answer.kind == FANWIRE_ANSWER_ACK && answer.sequence == 1000 && answer.accepted == 1);
    CHECK(fanwire_wait_ack(&publisher, 1000, 0, NULL) == FANWIRE_OK);

    for (i = 0; i < 100; i++) {
        (void)snprintf(data, sizeof data, "%d", i);
        event = fanwire_event_text(topic, "batch", data);
        event.flags = i == 99 ? FANWIRE_ACK : 0;
        CHECK(fanwire_batch(&publisher, &event) == FANWIRE_OK);
    }
    CHECK(fanwire_pending(&publisher) > 100 * 32);
    CHECK(fanwire_flush(&publisher) == FANWIRE_OK && fanwire_pending(&publisher) == 0);
    CHECK(fanwire_wait_ack(&publisher, 1100, WAIT_MS, &answer) == FANWIRE_OK);
    CHECK(answer.sequence == 1100 && answer.accepted == 101);

    out_of_limits(&publisher);

    event = event_on("tab\there", "e", "1");
    CHECK(fanwire_publish(&publisher, &event) == FANWIRE_OK);
    refused = fanwire_last_sequence(&publisher);
    CHECK(fanwire_wait_ack(&publisher, refused, WAIT_MS, &answer) == FANWIRE_REFUSED);
    CHECK(answer.kind == FANWIRE_ANSWER_ERROR && answer.code == FANWIRE_ERROR_BAD_NAME);
    CHECK(answer.sequence == refused && answer.message_length == strlen(answer.message) && answer.message_length > 0);
    event = event_on(topic, "e", "{\"unfinished\":");
    CHECK(fanwire_publish(&publisher, &event) == FANWIRE_OK);
    CHECK(fanwire_poll(&publisher, WAIT_MS, &answer) == FANWIRE_OK);
    CHECK(answer.kind == FANWIRE_ANSWER_ERROR && answer.code == FANWIRE_ERROR_BAD_DATA);
    CHECK(answer.sequence == refused + 1);

    /* More ERRORs than there is room for: none is lost, and the publisher is told to read them before it is stuck. */
    for (i = 0, next = 0; next < 500;) {
        int result = FANWIRE_ANSWERS_FULL;
        if (i < 500) {
            event = fanwire_event_text(topic, "e", i % 2 ? "nonsense" : "\"\xff\"");
            result = fanwire_publish(&publisher, &event);
            CHECK(result == FANWIRE_OK || result == FANWIRE_ANSWERS_FULL);
            i += result == FANWIRE_OK;
        }
        if (result == FANWIRE_ANSWERS_FULL) {
            CHECK(fanwire_poll(&publisher, WAIT_MS, &answer) == FANWIRE_OK);
            CHECK(answer.kind == FANWIRE_ANSWER_ERROR && answer.code == FANWIRE_ERROR_BAD_DATA);
            CHECK(answer.sequence == refused + 2 + (uint64_t)next);
            next++;
        }
    }

    CHECK(fanwire_ping(&publisher, "are you there", 13) == FANWIRE_OK);
    CHECK(fanwire_poll(&publisher, WAIT_MS, &answer) == FANWIRE_OK);
    CHECK(answer.kind == FANWIRE_ANSWER_PONG && strcmp(answer.message, "are you there") == 0);
    CHECK(fanwire_ping(&publisher, NULL, 0) == FANWIRE_OK);
    CHECK(fanwire_poll(&publisher, WAIT_MS, &answer) == FANWIRE_OK);
    CHECK(answer.kind == FANWIRE_ANSWER_PONG && answer.message_length == 0);

    /* Neither ACK nor wait: closing alone makes sure that the event got there. */
    event = fanwire_event_text(topic, "after-refusals", "");
    CHECK(fanwire_publish(&publisher, &event) == FANWIRE_OK);
    CHECK(fanwire_close(&publisher, WAIT_MS) == FANWIRE_OK);
    CHECK(fanwire_fd(&publisher) == -1);
    CHECK(fanwire_publish(&publisher, &event) == FANWIRE_CLOSED);
    CHECK(fanwire_poll(&publisher, 0, &answer) == FANWIRE_CLOSED);
}

static void a_full_buffer(const char *address, const char *topic) {
    fanwire_publisher publisher;
    fanwire_options options = fanwire_default_options();
    fanwire_event event = fanwire_event_text(topic, "buffered", "1");
    int taken = 0, result;
    options.buffer_bytes = 1000;
    CHECK(fanwire_open(&publisher, address, &options) == FANWIRE_OK);
    while ((result = fanwire_batch(&publisher, &event)) == FANWIRE_OK)
        taken++;
    CHECK(result == FANWIRE_BUFFER_FULL && taken > 1 && fanwire_pending(&publisher) <= 1000);
    CHECK(fanwire_last_sequence(&publisher) == (uint64_t)taken);
    CHECK(fanwire_flush(&publisher) == FANWIRE_OK);
    /* An empty buffer takes one event of any size. */
    memset(text, ' ', 4000);
    text[4000] = '1';
    event = fanwire_event_bytes(topic, "buffered", text, 4001);
    event.flags = FANWIRE_ACK;
    CHECK(fanwire_batch(&publisher, &event) == FANWIRE_OK);
    CHECK(fanwire_batch(&publisher, &event) == FANWIRE_BUFFER_FULL);
    CHECK(fanwire_publish(&publisher, &event) == FANWIRE_OK);
    CHECK(fanwire_wait_ack(&publisher, fanwire_last_sequence(&publisher), WAIT_MS, NULL) == FANWIRE_OK);
    CHECK(fanwire_close(&publisher, WAIT_MS) == FANWIRE_OK);
}

/* While the node stands still the socket fills; then every event that was taken is accepted, and no other. */
static void a_node_that_stands_still(const char *address, const char *topic, pid_t node) {
    fanwire_publisher publisher;
    fanwire_event event, with_receipt;
    fanwire_answer answer;
    uint64_t taken, events = 0;
    int result;
    memset(text, ' ', 100000);
    text[100000] = '7';
    event = fanwire_event_bytes(topic, "large", text, 100001);
    event.flags = FANWIRE_ACK;
    with_receipt = event;
    with_receipt.flags = FANWIRE_ACK | FANWIRE_RECEIPT;
    CHECK(fanwire_open(&publisher, address, NULL) == FANWIRE_OK);
    CHECK(kill(node, SIGSTOP) == 0);
    /* The signal takes a moment: only when nothing goes for a while does the node stand still. */
    do {
        while ((result = fanwire_try_publish(&publisher, &event)) == FANWIRE_OK)
            CHECK(++events < 100000);
        CHECK(result == FANWIRE_WOULD_BLOCK);
        taken = fanwire_last_sequence(&publisher);
        with_receipt.sequence = taken + 500;
        result = fanwire_publish_within(&publisher, &with_receipt, 50);
        events += result == FANWIRE_OK;
    } while (result == FANWIRE_OK);
    CHECK(result == FANWIRE_WOULD_BLOCK && taken > 0);
    CHECK(fanwire_last_sequence(&publisher) == taken);
    CHECK(fanwire_wait_ack(&publisher, taken, 0, NULL) == FANWIRE_WOULD_BLOCK);
    /* What was not taken waits for no receipt either. */
    CHECK(fanwire_wait_receipt(&publisher, taken + 500, 0, NULL) == FANWIRE_INVALID);
    CHECK(kill(node, SIGCONT) == 0);
    with_receipt.sequence = taken + 1000;
    CHECK(fanwire_publish(&publisher, &with_receipt) == FANWIRE_OK);
    CHECK(fanwire_wait_ack(&publisher, taken + 1000, WAIT_MS, &answer) == FANWIRE_OK);
    CHECK(answer.sequence == taken + 1000 && answer.accepted == events + 1);
    CHECK(fanwire_wait_receipt(&publisher, taken + 1000, WAIT_MS, NULL) == FANWIRE_OK);
    CHECK(fanwire_close(&publisher, WAIT_MS) == FANWIRE_OK);
}

static void closing_tells_of_errors_that_were_not_read(const char *address) {
    fanwire_publisher publisher;
    fanwire_event event = fanwire_event_text("t", "e", "nonsense");
    fanwire_answer answer;
    int i;
    CHECK(fanwire_open(&publisher, address, NULL) == FANWIRE_OK);
    for (i = 0; i < 40; i++)
        CHECK(fanwire_batch(&publisher, &event) == FANWIRE_OK);
    CHECK(fanwire_close(&publisher, WAIT_MS) == FANWIRE_REFUSED);
    CHECK(strstr(fanwire_error(&publisher), "40") != NULL);
    for (i = 0; i < FANWIRE_MAX_ANSWERS; i++) {
        CHECK(fanwire_poll(&publisher, 0, &answer) == FANWIRE_OK);
        CHECK(answer.kind == FANWIRE_ANSWER_ERROR && answer.sequence == (uint64_t)i + 1);
    }
    CHECK(fanwire_poll(&publisher, 0, &answer) == FANWIRE_CLOSED);
}

static void too_large_closes(const char *address) {
    fanwire_publisher publisher;
    fanwire_options options = fanwire_default_options();
    fanwire_event event;
    fanwire_answer answer;
    int result;
    options.max_data_bytes = sizeof text;
    memset(text, '1', sizeof text);
    event = fanwire_event_bytes("t", "e", text, sizeof text);
    CHECK(fanwire_open(&publisher, address, &options) == FANWIRE_OK);
    result = fanwire_publish(&publisher, &event);
    CHECK(result == FANWIRE_OK || result == FANWIRE_CLOSED);
    CHECK(fanwire_poll(&publisher, WAIT_MS, &answer) == FANWIRE_OK);
    CHECK(answer.kind == FANWIRE_ANSWER_ERROR && answer.code == FANWIRE_ERROR_TOO_LARGE && answer.sequence == 1);
    CHECK(strstr(fanwire_error(&publisher), answer.message) != NULL);
    CHECK(fanwire_poll(&publisher, WAIT_MS, &answer) == FANWIRE_CLOSED);
    CHECK(fanwire_publish(&publisher, &event) == FANWIRE_CLOSED);
    CHECK(fanwire_close(&publisher, WAIT_MS) == FANWIRE_CLOSED);
}

/* `heard` has CLIENTS subscribers, who are to receive "one" and then "many" with 0 to MANY - 1. */
#define CLIENTS 3
#define MANY 1000

static int went_to_all(const fanwire_receipt *receipt) {
    return receipt->matched == CLIENTS && receipt->written == CLIENTS && receipt->queued == 0
        && receipt->left_out == 0 && receipt->closed == 0;
}

static void receipts(const char *address, const char *heard, const char *unheard) {
    static unsigned char told[MANY];
    fanwire_publisher publisher;
    fanwire_event event;
    fanwire_answer answer;
    fanwire_receipt receipt;
    char data[64];
    int i, waited = 0;

    CHECK(fanwire_open(&publisher, address, NULL) == FANWIRE_OK);
    event = event_on(heard, "one", "1");
    event.flags = FANWIRE_RECEIPT;
    CHECK(fanwire_publish(&publisher, &event) == FANWIRE_OK);
    CHECK(fanwire_wait_receipt(&publisher, 1, WAIT_MS, &receipt) == FANWIRE_OK);
    CHECK(receipt.sequence == 1 && went_to_all(&receipt));
    CHECK(fanwire_wait_receipt(&publisher, 1, WAIT_MS, &receipt) == FANWIRE_INVALID);
    event = event_on(unheard, "e", "1");
    event.flags = FANWIRE_RECEIPT | FANWIRE_ACK;
    CHECK(fanwire_publish(&publisher, &event) == FANWIRE_OK);
    CHECK(fanwire_wait_receipt(&publisher, 2, WAIT_MS, &receipt) == FANWIRE_OK);
    CHECK(receipt.sequence == 2 && receipt.matched == 0 && receipt.written == 0 && receipt.queued == 0);
    CHECK(fanwire_wait_ack(&publisher, 2, WAIT_MS, NULL) == FANWIRE_OK);

    /* What is refused has an ERROR and no receipt, whichever is waited for. */
    event = event_on(unheard, "e", "nonsense");
    event.flags = FANWIRE_RECEIPT;
    CHECK(fanwire_publish(&publisher, &event) == FANWIRE_OK);
    CHECK(fanwire_wait_receipt(&publisher, 3, WAIT_MS, &receipt) == FANWIRE_REFUSED);
    CHECK(strstr(fanwire_error(&publisher), "error 5") != NULL);
    CHECK(fanwire_publish(&publisher, &event) == FANWIRE_OK);
    CHECK(fanwire_poll(&publisher, WAIT_MS, &answer) == FANWIRE_OK && answer.kind == FANWIRE_ANSWER_ERROR);
    CHECK(fanwire_wait_receipt(&publisher, 4, WAIT_MS, &receipt) == FANWIRE_INVALID);

    /* As many as there are places: others go on, no more receipts may be asked for, and none is in the way. */
    event = event_on(unheard, "e", "1");
    event.flags = FANWIRE_RECEIPT;
    for (i = 0; i < FANWIRE_MAX_RECEIPTS; i++)
        CHECK((i % 2 ? fanwire_publish : fanwire_batch)(&publisher, &event) == FANWIRE_OK);
    CHECK(fanwire_publish(&publisher, &event) == FANWIRE_ANSWERS_FULL);
    CHECK(fanwire_last_sequence(&publisher) == 4 + FANWIRE_MAX_RECEIPTS);
    event.flags = FANWIRE_ACK;
    CHECK(fanwire_publish(&publisher, &event) == FANWIRE_OK);
    CHECK(fanwire_wait_ack(&publisher, 5 + FANWIRE_MAX_RECEIPTS, WAIT_MS, NULL) == FANWIRE_OK);
    CHECK(fanwire_ping(&publisher, "p", 1) == FANWIRE_OK);
    CHECK(fanwire_poll(&publisher, WAIT_MS, &answer) == FANWIRE_OK);
    while (answer.kind != FANWIRE_ANSWER_PONG) {
        CHECK(answer.kind == FANWIRE_ANSWER_RECEIPT && answer.sequence == 5 + (uint64_t)waited++);
        CHECK(fanwire_poll(&publisher, WAIT_MS, &answer) == FANWIRE_OK);
    }
    /* Out of order: the places between are kept, and given later. */
    if (waited < FANWIRE_MAX_RECEIPTS) {
        CHECK(fanwire_wait_receipt(&publisher, 4 + FANWIRE_MAX_RECEIPTS, WAIT_MS, &receipt) == FANWIRE_OK);
        for (; waited < FANWIRE_MAX_RECEIPTS - 1; waited++) {
            CHECK(fanwire_poll(&publisher, WAIT_MS, &answer) == FANWIRE_OK);
            CHECK(answer.kind == FANWIRE_ANSWER_RECEIPT && answer.sequence == 5 + (uint64_t)waited);
        }
    }
    CHECK(fanwire_poll(&publisher, 0, &answer) == FANWIRE_WOULD_BLOCK);
    CHECK(fanwire_close(&publisher, WAIT_MS) == FANWIRE_OK);

    /* One for every event, read where there is no place, and what is left after closing. */
    CHECK(fanwire_open(&publisher, address, NULL) == FANWIRE_OK);
    for (i = 0; i < MANY; i++) {
        int result;
        (void)snprintf(data, sizeof data, "%d", i);
        event = fanwire_event_text(heard, "many", data);
        event.flags = FANWIRE_RECEIPT;
        while ((result = fanwire_publish(&publisher, &event)) == FANWIRE_ANSWERS_FULL) {
            CHECK(fanwire_poll(&publisher, WAIT_MS, &answer) == FANWIRE_OK);
            CHECK(answer.kind == FANWIRE_ANSWER_RECEIPT && went_to_all(&answer.receipt));
            CHECK(answer.sequence == answer.receipt.sequence && answer.sequence - 1 < MANY);
            CHECK(!told[answer.sequence - 1]++);
        }
        CHECK(result == FANWIRE_OK);
    }
    CHECK(fanwire_close(&publisher, WAIT_MS) == FANWIRE_OK);
    while (fanwire_poll(&publisher, 0, &answer) == FANWIRE_OK) {
        CHECK(answer.kind == FANWIRE_ANSWER_RECEIPT && went_to_all(&answer.receipt));
        CHECK(!told[answer.sequence - 1]++);
    }
    for (i = 0; i < MANY; i++)
        CHECK(told[i]);
}

/* Subscribers of `heard` are to receive "again" with 1 to 100, each once, although connections break. */
static void events_sent_again(const char *address, const char *heard) {
    fanwire_publisher publisher;
    fanwire_options options = fanwire_default_options();
    fanwire_event event;
    fanwire_receipt receipt;
    char data[64];
    uint64_t acknowledged = 0, sequence;
    int breaks;

    options.name = heard;
    for (breaks = 0; acknowledged < 100; breaks++) {
        uint64_t last = 20 * ((uint64_t)breaks + 2) < 100 ? 20 * ((uint64_t)breaks + 2) : 100;
        CHECK(fanwire_open(&publisher, address, &options) == FANWIRE_OK);
        CHECK(fanwire_acknowledged(&publisher) == 0);
        for (sequence = acknowledged + 1; sequence <= last; sequence++) {
            (void)snprintf(data, sizeof data, "%d", (int)sequence);
            event = event_on(heard, "again", data);
            event.sequence = sequence;
            CHECK(fanwire_publish(&publisher, &event) == FANWIRE_OK);
        }
        CHECK(fanwire_wait_ack(&publisher, acknowledged + 10, WAIT_MS, NULL) == FANWIRE_OK);
        if (last == 100) {
            CHECK(fanwire_wait_ack(&publisher, 100, WAIT_MS, NULL) == FANWIRE_OK);
            CHECK(fanwire_close(&publisher, WAIT_MS) == FANWIRE_OK);
        } else {
            CHECK(shutdown(fanwire_fd(&publisher), SHUT_RDWR) == 0);
            CHECK(fanwire_publish(&publisher, &event) == FANWIRE_INVALID); /* its number was taken */
            event.sequence = 0;
            CHECK(fanwire_publish(&publisher, &event) < 0);
            CHECK(fanwire_close(&publisher, WAIT_MS) < 0);
        }
        CHECK(fanwire_acknowledged(&publisher) >= acknowledged + 10 && fanwire_acknowledged(&publisher) <= last);
        acknowledged = fanwire_acknowledged(&publisher);
    }
    CHECK(breaks > 1);

    /* All of them once more: acknowledged, and gone to nobody. */
    options.first_sequence = 1;
    CHECK(fanwire_open(&publisher, address, &options) == FANWIRE_OK);
    for (sequence = 1; sequence <= 100; sequence++) {
        event = event_on(heard, "again", "0");
        event.flags |= FANWIRE_RECEIPT;
        CHECK(fanwire_publish(&publisher, &event) == FANWIRE_OK);
        CHECK(fanwire_wait_receipt(&publisher, sequence, WAIT_MS, &receipt) == FANWIRE_OK);
        CHECK(receipt.matched == 0 && receipt.written == 0);
    }
    CHECK(fanwire_wait_ack(&publisher, 100, WAIT_MS, NULL) == FANWIRE_OK);
    CHECK(fanwire_close(&publisher, WAIT_MS) == FANWIRE_OK);
}

int main(int count, char **arguments) {
    char heard[300], unheard[300];
    if (count != 4) {
        fprintf(stderr, "usage: exercise ADDRESS TOPIC NODE_PID\n");
        return 2;
    }
    (void)snprintf(heard, sizeof heard, "%s-receipts", arguments[2]);
    (void)snprintf(unheard, sizeof unheard, "%s-unheard", arguments[2]);
    addresses_that_cannot_be_opened();
    everything(arguments[1], arguments[2]);
    a_full_buffer(arguments[1], unheard);
    a_node_that_stands_still(arguments[1], unheard, (pid_t)atol(arguments[3]));
    closing_tells_of_errors_that_were_not_read(arguments[1]);
    too_large_closes(arguments[1]);
    receipts(arguments[1], heard, unheard);
    events_sent_again(arguments[1], heard);
    return 0;
}
