// What the files of the SDK share with each other and with its tests.
#pragma once

#include "millpond_guest.h"

struct mp_output {
    mp_bytes section;
    int64_t base_timestamp;
    size_t run_start, run_end; // kept records that are not copied yet
    uint8_t *bytes;
    size_t size, capacity;
};

// A text of the contract: an address and a size, as they lie in memory.
typedef struct {
    uint8_t *at;
    size_t size;
} mp_owned;

struct mp_params {
    const mp_owned *pairs; // name, value, name, value
    size_t count;          // of pairs
    char *error;
};

// Takes the record at the front of a section. False if these bytes are not a record.
bool mp_take_record(mp_bytes section, size_t *at, int64_t base_timestamp, mp_record *record);

// The bytes of an output; they belong to the caller, unless they are a stretch of the section.
mp_owned mp_finish(mp_output *out);

// As malloc, but without memory the module ends.
void *mp_allocate(size_t size);

// A text that stays, made of pieces up to a NULL.
char *mp_join(const char *first, ...);
