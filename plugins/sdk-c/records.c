// Records as they lie in a batch, read and written; drawn in millpond_guest.h.

#include "internal.h"

#include <stdlib.h>
#include <string.h>

enum { NUMBER_BYTES_MAX = 10 };

static bool take_number(mp_bytes *from, int64_t *number) {
    uint64_t folded = 0;
    for (size_t index = 0; index < from->size && index < NUMBER_BYTES_MAX; index++) {
        uint8_t byte = from->at[index];
        if (index == NUMBER_BYTES_MAX - 1 && byte > 1) return false;
        folded |= (uint64_t)(byte & 0x7f) << (7 * index);
        if (byte < 0x80) {
            *from = (mp_bytes){from->at + index + 1, from->size - index - 1};
            *number = (int64_t)(folded >> 1) ^ -(int64_t)(folded & 1);
            return true;
        }
    }
    return false;
}

static bool take_int32(mp_bytes *from, int32_t *number) {
    int64_t wide;
    if (!take_number(from, &wide) || wide < INT32_MIN || wide > INT32_MAX) return false;
    *number = (int32_t)wide;
    return true;
}

static bool take_bytes(mp_bytes *from, mp_bytes *bytes) {
    int32_t size;
    if (!take_int32(from, &size)) return false;
    if (size == -1) {
        *bytes = (mp_bytes){NULL, 0};
        return true;
    }
    if (size < 0 || (size_t)size > from->size) return false;
    *bytes = (mp_bytes){from->at, (size_t)size};
    *from = (mp_bytes){from->at + size, from->size - (size_t)size};
    return true;
}

bool mp_next_header(mp_headers *headers, mp_header *header) {
    if (headers->count <= 0) return false;
    headers->count--;
    // The broker has checked them, so this ends early only in a test that made up its bytes.
    return take_bytes(&headers->bytes, &header->name) && take_bytes(&headers->bytes, &header->value);
}

bool mp_take_record(mp_bytes section, size_t *at, int64_t base_timestamp, mp_record *record) {
    const uint8_t *start = section.at + *at;
    mp_bytes rest = {start, section.size - *at};
    mp_bytes body;
    int64_t timestamp_delta;
    if (!take_bytes(&rest, &body) || body.at == NULL || body.size == 0) return false;
    body = (mp_bytes){body.at + 1, body.size - 1}; // the attributes, of which no bit has a meaning
    if (!take_number(&body, &timestamp_delta) || !take_int32(&body, &record->offset_delta)) return false;
    if (!take_bytes(&body, &record->key) || !take_bytes(&body, &record->value) || !take_int32(&body, &record->headers.count)) return false;
    record->headers.bytes = body;
    record->timestamp = (int64_t)((uint64_t)base_timestamp + (uint64_t)timestamp_delta);
    record->encoded = (mp_bytes){start, (size_t)(rest.at - start)};
    *at += record->encoded.size;
    return true;
}

mp_change mp_changed(const mp_record *record) {
    return (mp_change){
        .key = record->key,
        .value = record->value,
        .headers = record->headers,
        .timestamp = record->timestamp,
        .offset_delta = record->offset_delta,
    };
}

static size_t number_size(int64_t number) {
    uint64_t folded = ((uint64_t)number << 1) ^ (uint64_t)(number >> 63);
    size_t size = 1;
    for (; folded >= 0x80; folded >>= 7) size++;
    return size;
}

static size_t bytes_size(mp_bytes bytes) {
    return bytes.at == NULL ? 1 : number_size((int64_t)bytes.size) + bytes.size;
}

static void room(mp_output *out, size_t more) {
    if (out->capacity - out->size >= more) return;
    size_t capacity = out->capacity * 2;
    if (capacity < out->size + more) capacity = out->size + more;
    if (capacity < out->section.size) capacity = out->section.size;
    uint8_t *bytes = mp_allocate(capacity);
    if (out->size > 0) memcpy(bytes, out->bytes, out->size);
    free(out->bytes);
    out->bytes = bytes;
    out->capacity = capacity;
}

static void put(mp_output *out, const uint8_t *bytes, size_t size) {
    if (size > 0) memcpy(out->bytes + out->size, bytes, size);
    out->size += size;
}

static void put_number(mp_output *out, int64_t number) {
    uint64_t folded = ((uint64_t)number << 1) ^ (uint64_t)(number >> 63);
    for (; folded >= 0x80; folded >>= 7) out->bytes[out->size++] = (uint8_t)(folded | 0x80);
    out->bytes[out->size++] = (uint8_t)folded;
}

static void put_bytes(mp_output *out, mp_bytes bytes) {
    put_number(out, bytes.at == NULL ? -1 : (int64_t)bytes.size);
    put(out, bytes.at, bytes.size);
}

static void end_run(mp_output *out) {
    size_t size = out->run_end - out->run_start;
    if (size > 0) {
        room(out, size);
        put(out, out->section.at + out->run_start, size);
    }
    out->run_start = out->run_end = 0;
}

void mp_keep(mp_output *out, const mp_record *record) {
    size_t start = (size_t)(record->encoded.at - out->section.at);
    if (start != out->run_end) {
        end_run(out);
        out->run_start = start;
    }
    out->run_end = start + record->encoded.size;
}

void mp_emit(mp_output *out, const mp_change *change) {
    end_run(out);
    int64_t timestamp_delta = (int64_t)((uint64_t)change->timestamp - (uint64_t)out->base_timestamp);
    int64_t header_count = change->headers.count + (int64_t)change->added_count;
    size_t size = 1 + number_size(timestamp_delta) + number_size(change->offset_delta) + number_size(header_count);
    size += bytes_size(change->key) + bytes_size(change->value) + change->headers.bytes.size;
    for (size_t index = 0; index < change->added_count; index++) {
        size += bytes_size(change->added[index].name) + bytes_size(change->added[index].value);
    }
    room(out, size + NUMBER_BYTES_MAX);
    put_number(out, (int64_t)size);
    out->bytes[out->size++] = 0;
    put_number(out, timestamp_delta);
    put_number(out, change->offset_delta);
    put_bytes(out, change->key);
    put_bytes(out, change->value);
    put_number(out, header_count);
    put(out, change->headers.bytes.at, change->headers.bytes.size);
    for (size_t index = 0; index < change->added_count; index++) {
        put_bytes(out, change->added[index].name);
        put_bytes(out, change->added[index].value);
    }
}

mp_owned mp_finish(mp_output *out) {
    if (out->bytes == NULL) {
        return (mp_owned){(uint8_t *)out->section.at + out->run_start, out->run_end - out->run_start};
    }
    end_run(out);
    return (mp_owned){out->bytes, out->size};
}

mp_bytes mp_text(const char *text) {
    return (mp_bytes){(const uint8_t *)text, strlen(text)};
}

bool mp_equal(mp_bytes one, mp_bytes other) {
    if (one.at == NULL || other.at == NULL) return one.at == other.at;
    return one.size == other.size && memcmp(one.at, other.at, one.size) == 0;
}

// org.apache.kafka.common.utils.Utils.murmur2
uint32_t mp_partition_of(mp_bytes key, uint32_t partition_count) {
    const uint32_t m = 0x5bd1e995;
    uint32_t hash = 0x9747b28c ^ (uint32_t)key.size;
    size_t at = 0;
    for (; at + 4 <= key.size; at += 4) {
        uint32_t word;
        memcpy(&word, key.at + at, 4); // WebAssembly is little-endian, as are the machines that test this
        word *= m;
        word ^= word >> 24;
        hash = (hash * m) ^ (word * m);
    }
    if (at < key.size) {
        for (size_t index = 0; at + index < key.size; index++) hash ^= (uint32_t)key.at[at + index] << (8 * index);
        hash *= m;
    }
    hash ^= hash >> 13;
    hash *= m;
    hash ^= hash >> 15;
    return partition_count == 0 ? 0 : (hash & 0x7fffffff) % partition_count;
}
