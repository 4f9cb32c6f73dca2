// Derives topics in a world without state, for tests: a record goes to the target that its value names.

#include "millpond_guest.h"

const char *guest_init(const mp_params *params) {
    mp_params_only(params, NULL, 0);
    return mp_params_error(params);
}

const char *guest_derive(const mp_record *record, mp_outputs *out) {
    mp_keep(mp_to(out, record->value.at[0] - '0'), record);
    return NULL;
}
