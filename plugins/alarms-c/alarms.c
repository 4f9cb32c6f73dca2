// Alarms of devices: a reading above a limit raises the alarm of its device, which is the record's key, and one that is not clears it.
// Attached with `--into ALARMS,READINGS --state-bytes BYTES`.
//
// | setting | default | meaning |
// |---|---|---|
// | `limit` | `80` | a reading above this is an alarm |
// | `field` | `temperature` | the field of the JSON object that holds the reading |
// | `page` | `100` | how many alarms answer a question, at most |
//
// A record without a key is a question for the alarms that are raised, of devices that begin with its value and come behind its header `after`.

#include "millpond_guest.h"

#include <inttypes.h>
#include <stdio.h>

enum { ALARMS, READINGS };

static double limit;
static const char *field;
static uint32_t page;

const char *guest_init(const mp_params *params) {
    const char *names[] = {"limit", "field", "page"};
    mp_params_only(params, names, 3);
    limit = mp_param_number(params, "limit", 80);
    field = mp_param_text(params, "field", "temperature");
    page = (uint32_t)mp_param_int(params, "page", 100);
    const mp_target *targets;
    if (mp_params_error(params) == NULL && mp_targets(params, &targets) != 2) return "name two topics: one for the alarms, one for the readings";
    return mp_params_error(params);
}

typedef struct {
    char digits[21];
} decimal;

static decimal text_of(uint64_t number) {
    decimal text;
    snprintf(text.digits, sizeof text.digits, "%" PRIu64, number);
    return text;
}

static const char *answer(const mp_record *question, mp_outputs *out) {
    mp_bytes after = {NULL, 0};
    mp_headers headers = question->headers;
    for (mp_header header; mp_next_header(&headers, &header);) {
        if (mp_equal(header.name, mp_text("after"))) after = header.value;
    }
    mp_scan scan = mp_state_scan(question->value, after, page);
    for (mp_entry entry; mp_state_next(&scan, &entry);) {
        decimal count = text_of(mp_state_get_u64(entry.key));
        mp_change change = {.key = entry.key, .value = mp_text(count.digits), .timestamp = question->timestamp, .offset_delta = question->offset_delta};
        mp_emit(mp_to(out, ALARMS), &change);
    }
    return NULL;
}

static const char *raise_alarm(const mp_record *record, uint64_t count, mp_outputs *out) {
    const char *error = mp_state_put_u64(record->key, count);
    if (error != NULL) return error;
    decimal text = text_of(count);
    mp_change change = mp_changed(record);
    change.added = &(mp_header){mp_text("count"), mp_text(text.digits)};
    change.added_count = 1;
    mp_emit(mp_to(out, ALARMS), &change);
    return NULL;
}

const char *guest_derive(const mp_record *record, mp_outputs *out) {
    if (record->key.at == NULL) return answer(record, out);
    if (record->value.at == NULL) { // the device is gone
        mp_state_delete(record->key);
        mp_keep(mp_to(out, ALARMS), record);
        mp_keep(mp_to(out, READINGS), record);
        return NULL;
    }
    double reading;
    mp_json kind = mp_json_number(record->value, field, &reading);
    if (kind == MP_JSON_BROKEN) return "the value is not a JSON object";
    uint64_t count = mp_state_get_u64(record->key);
    if (kind == MP_JSON_NUMBER && reading > limit) return raise_alarm(record, count + 1, out);
    if (count > 0) {
        mp_state_delete(record->key);
        decimal text = text_of(count);
        mp_header cleared = {mp_text("cleared"), mp_text(text.digits)};
        mp_change change = mp_changed(record);
        change.value = (mp_bytes){NULL, 0};
        change.headers = (mp_headers){0};
        change.added = &cleared;
        change.added_count = 1;
        mp_emit(mp_to(out, ALARMS), &change);
    }
    mp_keep(mp_to(out, READINGS), record);
    return NULL;
}
