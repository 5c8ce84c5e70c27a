/* The header in two translation units of one program: two_units ADDRESS TOPIC. The other one is two_units_b.c. */
#include "fanwire.h"

int publish_from_the_other_unit(fanwire_publisher *publisher, const char *topic);

int main(int count, char **arguments) {
    fanwire_publisher publisher;
    int result;
    if (count != 3) {
        fprintf(stderr, "usage: two_units ADDRESS TOPIC\n");
        return 2;
    }
    result = fanwire_open(&publisher, arguments[1], NULL);
    if (result == FANWIRE_OK) {
        result = publish_from_the_other_unit(&publisher, arguments[2]);
        if (result == FANWIRE_OK)
            result = fanwire_close(&publisher, 20000);
        else
            (void)fanwire_close(&publisher, 0);
    }
    if (result != FANWIRE_OK)
        fprintf(stderr, "%s\n", fanwire_error(&publisher));
    return result == FANWIRE_OK ? 0 : 1;
}
