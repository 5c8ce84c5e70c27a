// Publishes one event from C++ and prints how many clients it was for, and written to: publish ADDRESS TOPIC
#include "fanwire.h"

#include <iostream>
#include <string>

int main(int count, char **arguments) {
    if (count != 3) {
        std::cerr << "usage: publish ADDRESS TOPIC\n";
        return 2;
    }
    const std::string topic = arguments[2], data = "{\"from\":\"C++\"}";
    fanwire_publisher publisher;
    int result = fanwire_open(&publisher, arguments[1], nullptr);
    if (result == FANWIRE_OK) {
        fanwire_event event = fanwire_event_bytes(topic.c_str(), "hello", data.data(), data.size());
        event.flags = FANWIRE_ACK | FANWIRE_RECEIPT;
        result = fanwire_publish(&publisher, &event);
        if (result == FANWIRE_OK)
            result = fanwire_wait_ack(&publisher, fanwire_last_sequence(&publisher), 20000, nullptr);
        fanwire_receipt receipt;
        if (result == FANWIRE_OK)
            result = fanwire_wait_receipt(&publisher, fanwire_last_sequence(&publisher), 20000, &receipt);
        if (result == FANWIRE_OK)
            std::cout << receipt.matched << ' ' << receipt.written << '\n';
        const int closed = fanwire_close(&publisher, 20000);
        if (result == FANWIRE_OK)
            result = closed;
    }
    if (result != FANWIRE_OK)
        std::cerr << fanwire_error(&publisher) << '\n';
    return result == FANWIRE_OK ? 0 : 1;
}
