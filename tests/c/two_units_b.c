/* Included last, as users do: with -std=c99 that takes _POSIX_C_SOURCE before the first header. */
#define _POSIX_C_SOURCE 200809L
#include <stdio.h>

#include "fanwire.h"

int publish_from_the_other_unit(fanwire_publisher *publisher, const char *topic);

int publish_from_the_other_unit(fanwire_publisher *publisher, const char *topic) {
    fanwire_event event = fanwire_event_text(topic, "hello", "\"from another unit\"");
    return fanwire_publish(publisher, &event);
}
