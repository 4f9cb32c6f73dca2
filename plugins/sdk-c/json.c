// Looks at a JSON object without building it. All of it is checked, as RFC 8259 has it.

#include "internal.h"

#include <stdlib.h>
#include <string.h>

// The most objects and arrays within each other.
enum { DEPTH_MAX = 512 };

typedef struct {
    const uint8_t *at, *end;
} cursor;

static void skip_blanks(cursor *c) {
    while (c->at < c->end && (*c->at == ' ' || *c->at == '\t' || *c->at == '\n' || *c->at == '\r')) c->at++;
}

static bool take(cursor *c, uint8_t byte) {
    if (c->at == c->end || *c->at != byte) return false;
    c->at++;
    return true;
}

static int hex(uint8_t digit) {
    if (digit >= '0' && digit <= '9') return digit - '0';
    digit |= 0x20;
    return digit >= 'a' && digit <= 'f' ? digit - 'a' + 10 : -1;
}

static bool take_hex(cursor *c, uint32_t *unit) {
    *unit = 0;
    for (int index = 0; index < 4; index++) {
        int digit = c->at < c->end ? hex(*c->at++) : -1;
        if (digit < 0) return false;
        *unit = *unit << 4 | (uint32_t)digit;
    }
    return true;
}

// Compares what a string says with a text, byte by byte.
typedef struct {
    const uint8_t *text;
    size_t size, at;
    bool same;
} comparison;

static void compare(comparison *with, uint8_t byte) {
    if (with == NULL) return;
    with->same = with->same && with->at < with->size && with->text[with->at] == byte;
    with->at++;
}

static void compare_character(comparison *with, uint32_t c) {
    if (c < 0x80) {
        compare(with, (uint8_t)c);
    } else if (c < 0x800) {
        compare(with, (uint8_t)(0xc0 | c >> 6));
        compare(with, (uint8_t)(0x80 | (c & 0x3f)));
    } else {
        if (c < 0x10000) {
            compare(with, (uint8_t)(0xe0 | c >> 12));
        } else {
            compare(with, (uint8_t)(0xf0 | c >> 18));
            compare(with, (uint8_t)(0x80 | (c >> 12 & 0x3f)));
        }
        compare(with, (uint8_t)(0x80 | (c >> 6 & 0x3f)));
        compare(with, (uint8_t)(0x80 | (c & 0x3f)));
    }
}

static bool take_escape(cursor *c, comparison *with) {
    if (c->at == c->end) return false;
    uint8_t escape = *c->at++;
    const char *simple = "\"\"\\\\//b\bf\fn\nr\rt\t";
    if (escape != 'u') {
        for (; *simple != 0; simple += 2) {
            if ((uint8_t)simple[0] == escape) return compare(with, (uint8_t)simple[1]), true;
        }
        return false;
    }
    uint32_t unit, low;
    if (!take_hex(c, &unit)) return false;
    cursor behind = *c;
    bool is_high = unit >= 0xd800 && unit < 0xdc00;
    if (is_high && take(&behind, '\\') && take(&behind, 'u') && take_hex(&behind, &low) && low >= 0xdc00 && low < 0xe000) {
        *c = behind;
        unit = 0x10000 + ((unit - 0xd800) << 10) + (low - 0xdc00);
    }
    compare_character(with, unit);
    return true;
}

// Whether a character of several bytes, of which this was the first, is UTF-8. Leaves the cursor behind it.
static bool take_rest_of_character(cursor *c, uint8_t first) {
    int more = first >= 0xc2 && first < 0xe0 ? 1 : first >= 0xe0 && first < 0xf0 ? 2 : first >= 0xf0 && first < 0xf5 ? 3 : -1;
    if (more < 0 || c->end - c->at < more) return false;
    uint8_t second = c->at[0];
    // Nothing that would fit into fewer bytes, no half of a surrogate pair, nothing behind the last character there is.
    uint8_t low = first == 0xe0 ? 0xa0 : first == 0xf0 ? 0x90 : 0x80;
    uint8_t high = first == 0xed ? 0x9f : first == 0xf4 ? 0x8f : 0xbf;
    if (second < low || second > high) return false;
    for (int index = 1; index < more; index++) {
        if ((c->at[index] & 0xc0) != 0x80) return false;
    }
    c->at += more;
    return true;
}

static bool take_string(cursor *c, comparison *with) {
    if (!take(c, '"')) return false;
    while (c->at < c->end) {
        uint8_t byte = *c->at++;
        if (byte == '"') return true;
        if (byte < 0x20) return false;
        if (byte >= 0x80) {
            const uint8_t *start = c->at;
            if (!take_rest_of_character(c, byte)) return false;
            compare(with, byte);
            for (; start < c->at; start++) compare(with, *start);
        } else if (byte != '\\') {
            compare(with, byte);
        } else if (!take_escape(c, with)) {
            return false;
        }
    }
    return false;
}

static bool take_digits(cursor *c) {
    const uint8_t *start = c->at;
    while (c->at < c->end && *c->at >= '0' && *c->at <= '9') c->at++;
    return c->at > start;
}

static bool take_number(cursor *c) {
    take(c, '-');
    if (!take(c, '0') && !take_digits(c)) return false;
    if (take(c, '.') && !take_digits(c)) return false;
    if (take(c, 'e') || take(c, 'E')) {
        if (!take(c, '+')) take(c, '-');
        return take_digits(c);
    }
    return true;
}

static bool take_word(cursor *c, const char *word) {
    size_t size = strlen(word);
    if ((size_t)(c->end - c->at) < size || memcmp(c->at, word, size) != 0) return false;
    c->at += size;
    return true;
}

static mp_json take_value(cursor *c, int depth);

// The members of an object or the items of an array, behind its first bracket.
static bool take_members(cursor *c, bool is_object, int depth, const char *name, mp_json *kind, mp_bytes *text) {
    uint8_t close = is_object ? '}' : ']';
    skip_blanks(c);
    if (take(c, close)) return true;
    do {
        comparison with = {(const uint8_t *)name, name == NULL ? 0 : strlen(name), 0, name != NULL};
        skip_blanks(c);
        if (is_object) {
            if (!take_string(c, &with)) return false;
            skip_blanks(c);
            if (!take(c, ':')) return false;
            skip_blanks(c);
        }
        const uint8_t *start = c->at;
        mp_json found = take_value(c, depth);
        if (found == MP_JSON_BROKEN) return false;
        if (with.same && with.at == with.size) {
            *kind = found;
            *text = (mp_bytes){start, (size_t)(c->at - start)};
        }
        skip_blanks(c);
    } while (take(c, ','));
    return take(c, close);
}

static mp_json take_value(cursor *c, int depth) {
    if (c->at == c->end || depth == 0) return MP_JSON_BROKEN;
    switch (*c->at) {
    case '{':
    case '[': {
        bool is_object = *c->at++ == '{';
        if (!take_members(c, is_object, depth - 1, NULL, NULL, NULL)) return MP_JSON_BROKEN;
        return is_object ? MP_JSON_OBJECT : MP_JSON_ARRAY;
    }
    case '"': return take_string(c, NULL) ? MP_JSON_STRING : MP_JSON_BROKEN;
    case 't': return take_word(c, "true") ? MP_JSON_BOOL : MP_JSON_BROKEN;
    case 'f': return take_word(c, "false") ? MP_JSON_BOOL : MP_JSON_BROKEN;
    case 'n': return take_word(c, "null") ? MP_JSON_NULL : MP_JSON_BROKEN;
    default: return take_number(c) ? MP_JSON_NUMBER : MP_JSON_BROKEN;
    }
}

mp_json mp_json_field(mp_bytes object, const char *name, mp_bytes *text) {
    cursor c = {object.at, object.at + object.size};
    mp_json kind = MP_JSON_MISSING;
    skip_blanks(&c);
    if (!take(&c, '{') || !take_members(&c, true, DEPTH_MAX, name, &kind, text)) return MP_JSON_BROKEN;
    skip_blanks(&c);
    return c.at == c.end ? kind : MP_JSON_BROKEN;
}

mp_json mp_json_number(mp_bytes object, const char *name, double *number) {
    mp_bytes text;
    mp_json kind = mp_json_field(object, name, &text);
    if (kind != MP_JSON_NUMBER) return kind;
    // Behind a number in an object stands a comma, a bracket or a blank, at which the conversion stops.
    *number = strtod((const char *)text.at, NULL);
    return MP_JSON_NUMBER;
}
