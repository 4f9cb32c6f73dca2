// A partitioner for tests: places a record by the length of its value, and asks for what no guest gets where the value says so.

#include "millpond_guest.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

const char *guest_init(const mp_params *params) {
    mp_params_only(params, NULL, 0);
    return mp_params_error(params);
}

const char *guest_partition(const mp_record *record, uint32_t partition_count, uint32_t *partition) {
    mp_bytes value = record->value;
    *partition = (uint32_t)value.size % partition_count;
    if (mp_equal(value, mp_text("print"))) printf("%d bytes\n", (int)value.size);
    if (mp_equal(value, mp_text("time")) && time(NULL) > 0) return "there is a clock";
    if (mp_equal(value, mp_text("file")) && fopen("/etc/passwd", "r") != NULL) return "there is a file";
    if (mp_equal(value, mp_text("variable")) && getenv("HOME") != NULL) return "there is a variable";
    if (mp_equal(value, mp_text("exit"))) exit(1);
    if (mp_equal(value, mp_text("range"))) *partition = partition_count;
    return NULL;
}
