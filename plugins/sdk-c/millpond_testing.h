// Tests of a guest on the machine that it is written on: records go in, what the broker would store comes out. `test.sh` compiles a test with
// its guest and runs it:
//
//     #include "millpond_testing.h"
//
//     int main(void) {
//         const char *settings[] = {"limit", "80", NULL};
//         MP_CHECK(mp_test_start(settings, NULL) == NULL);
//         mp_change input[] = {{.key = mp_text("pump-3"), .value = mp_text("{\"temperature\":81}")}};
//         mp_written written = mp_test_run(input, 1);
//         MP_CHECK(written.error == NULL && written.count == 1);
//         mp_test_free(&written);
//     }
#pragma once

#include "millpond_guest.h"

#include <stdio.h>
#include <stdlib.h>

// Ends the test with the line of what was expected in vain.
#define MP_CHECK(condition) ((condition) ? (void)0 : (fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition), exit(1)))

// The time of a record that has none, 2026-01-01 UTC.
#define MP_TEST_TIMESTAMP INT64_C(1767225600000)

// Starts the guest with settings, names and values up to a NULL, and with the names of targets, up to a NULL too; either may be NULL. What a
// guest has in static variables stays from start to start. Returns NULL, or the text with which it refused.
const char *mp_test_start(const char *const *settings, const char *const *targets);

// One record that came out.
typedef struct {
    uint32_t target; // 0 for a transform
    mp_record record;
} mp_written_record;

// What came of a batch: records, those of one target in order, or an error and which record it is about.
typedef struct {
    const char *error;
    uint32_t failed;
    mp_written_record *records;
    size_t count;
    struct mp_written_bytes *bytes;
} mp_written;

// Passes records through a guest that transforms or derives. After an error what it has changed in its state is taken back.
mp_written mp_test_run(const mp_change *input, size_t count);

void mp_test_free(mp_written *written);

// Asks a partitioner for the partitions of records. Returns NULL, or the error.
const char *mp_test_place(const mp_change *input, size_t count, uint32_t partition_count, uint32_t *partitions);

// Begins with an empty state, which is granted so many bytes, counted as the broker does. SIZE_MAX is no limit, which is how it begins.
void mp_test_grant_state(size_t bytes);
