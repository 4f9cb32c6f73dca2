// Write modules that run inside the Millpond broker in C: transforms, which change records before they are stored, and partitioners, which
// place them.
//
//     #include "millpond_guest.h"
//
//     static int64_t bytes_max;
//
//     const char *guest_init(const mp_params *params) {
//         const char *names[] = {"bytes_max"};
//         mp_params_only(params, names, 1);
//         bytes_max = mp_param_int(params, "bytes_max", 1024);
//         return mp_params_error(params);
//     }
//
//     const char *guest_transform(const mp_record *record, mp_output *out) {
//         if ((int64_t)record->value.size <= bytes_max) mp_keep(out, record); // neither kept nor emitted: dropped
//         return NULL;
//     }
//
// A guest defines `guest_init` and `guest_transform`, or `guest_init` and `guest_partition`. A text that is returned is an error: it refuses
// the attachment, or fails the batch at this record, and is shown to whoever asked or sent it. There is no clock, no random number, no file
// and no network; memory, time and output are limited. What a guest remembers between batches is a cache at most: there may be several
// instances, and each may be replaced at any time. `printf` writes to the broker's log.
//
//  one record, numbers are zig-zag varints of seven bits in a byte, the lowest first (KIP-98)
//  +--------+------------+-----------+--------+---------+-----+-----------+-------+--------------+---------+
//  | length | attributes | timestamp | offset | key     | key | value     | value | header count | headers |
//  |        | 1 byte     | delta     | delta  | length  |     | length    |       |              |         |
//  +--------+------------+-----------+--------+---------+-----+-----------+-------+--------------+---------+
//           |<------------------------------ length ------------------------------------------------------>|
//  a length of -1 is a key or a value that is not there; a header is name length, name, value length, value
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

// Bytes that belong to somebody else. Without an address there are none: no key, no value.
typedef struct {
    const uint8_t *at;
    size_t size;
} mp_bytes;

// The bytes of a text that ends in 0.
mp_bytes mp_text(const char *text);

bool mp_equal(mp_bytes one, mp_bytes other);

typedef struct {
    mp_bytes name;
    mp_bytes value;
} mp_header;

// Headers as they lie in a record.
typedef struct {
    int32_t count;
    mp_bytes bytes;
} mp_headers;

// Takes the next header. False at the end.
bool mp_next_header(mp_headers *headers, mp_header *header);

// One record, borrowed from its batch.
typedef struct {
    mp_bytes key;
    mp_bytes value;
    mp_headers headers;
    int64_t timestamp;    // in milliseconds since 1970-01-01 UTC, as the producer says
    int32_t offset_delta; // its place in the batch
    mp_bytes encoded;
} mp_record;

// A record to be stored in place of another; `mp_changed` makes one that changes nothing.
typedef struct {
    mp_bytes key;
    mp_bytes value;
    mp_headers headers;     // of the record that it was
    const mp_header *added; // behind these
    size_t added_count;
    int64_t timestamp;
    int32_t offset_delta;
} mp_change;

mp_change mp_changed(const mp_record *record);

// What holds for all records of a batch.
typedef struct {
    mp_bytes topic;
    bool has_partition;
    uint32_t partition;
    int64_t base_timestamp;
    uint32_t record_count;
} mp_batch;

// Takes the records to be stored. A record that is neither kept nor emitted is dropped, and its offset stays unused.
typedef struct mp_output mp_output;

// Stores the record as it came. This is the fast way: neighbours are copied together.
void mp_keep(mp_output *out, const mp_record *record);

// Stores a changed record. Several may be made of one: then the broker numbers the records of the batch anew.
void mp_emit(mp_output *out, const mp_change *change);

// Names and values, as they were given to `millpond transform attach TOPIC MODULE --param NAME=VALUE`.
typedef struct mp_params mp_params;

// The value of a setting, or a default. The text ends in 0 and stays for ever.
const char *mp_param_text(const mp_params *params, const char *name, const char *otherwise);
double mp_param_number(const mp_params *params, const char *name, double otherwise);
int64_t mp_param_int(const mp_params *params, const char *name, int64_t otherwise);

// Refuses settings that the module does not have, so that a misspelt name is not silently without effect.
void mp_params_only(const mp_params *params, const char *const *names, size_t count);

// The first thing that was wrong with a setting, or NULL: what `guest_init` returns.
const char *mp_params_error(const mp_params *params);

// What a field of a JSON object is.
typedef enum {
    MP_JSON_BROKEN, // the value is no JSON object
    MP_JSON_MISSING,
    MP_JSON_NULL,
    MP_JSON_BOOL,
    MP_JSON_NUMBER,
    MP_JSON_STRING,
    MP_JSON_ARRAY,
    MP_JSON_OBJECT,
} mp_json;

// Looks at all of a JSON object and finds a field of its outermost level; if the name is there several times, the last counts. `text` is
// the field's own JSON.
mp_json mp_json_field(mp_bytes object, const char *name, mp_bytes *text);

// The same for a number.
mp_json mp_json_number(mp_bytes object, const char *name, double *number);

typedef enum { MP_DEBUG, MP_INFO, MP_WARN, MP_ERROR } mp_level;

// A line for the broker's log, which limits their length and number.
void mp_log(mp_level level, const char *message);

// The partition of a key: where a Kafka client puts a record with this key if nobody says otherwise (murmur2).
uint32_t mp_partition_of(mp_bytes key, uint32_t partition_count);

// What a guest defines.
const char *guest_init(const mp_params *params);
const char *guest_transform(const mp_record *record, mp_output *out);
const char *guest_partition(const mp_record *record, uint32_t partition_count, uint32_t *partition);
