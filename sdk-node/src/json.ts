/**
 * JSON as the native half speaks it: `snake_case` names, and 64-bit numbers as numbers.
 *
 * `JSON.parse` rounds a number from 2^53 on. So numbers of 16 digits and more become `bigint` before it can, and a `bigint` is written as the
 * number that it is.
 *
 * @internal
 */

import { camelCase } from './errors.js';

/** A whole string, or a whole number outside of strings that may be too long to be exact. */
const STRING_OR_LONG_NUMBER = /"(?:[^"\\]|\\.)*"|-?\d{16,}(?![\d.eE])/g;
/** Marks a long number; no other text of ours begins with a control character. */
const MARK = '\u0001';

/** @internal */
export function parse(text: string): unknown {
  const marked = text.replace(STRING_OR_LONG_NUMBER, (found) => (found.startsWith('"') ? found : `"\\u0001${found}"`));
  return JSON.parse(marked, (_, value: unknown) =>
    typeof value === 'string' && value.startsWith(MARK) ? BigInt(value.slice(1)) : value,
  );
}

/** @internal */
export function stringify(value: unknown): string {
  const text = JSON.stringify(value, (_, inner: unknown) => (typeof inner === 'bigint' ? `${MARK}${inner}` : inner));
  return text.replace(/"\\u0001(-?\d+)"/g, '$1');
}

/** The names of fields whose numbers are offsets: always `bigint`, however small. */
const OFFSETS = new Set([
  'log_start',
  'high_watermark',
  'log_end',
  'offset',
  'base_offset',
  'first_offset',
  'compacted_to',
  'producer_id',
  'position',
  'committed',
  'line',
  'log',
]);

/** Fields whose keys are a user's own names, and stay as they are. */
const MAPS = new Set(['params', 'failures_by_kind']);

/** Fields with a time in milliseconds, which become a `Date` under a name without `_ms`. */
const TIMES = new Set(['at_ms', 'deployed_at_ms', 'append_time_ms', 'base_timestamp_ms']);

/** Names in `camelCase`, offsets as `bigint`, times as `Date`. @internal */
export function fromWire(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(fromWire);
  if (value === null || typeof value !== 'object') return value;
  const object: Record<string, unknown> = {};
  for (const [name, inner] of Object.entries(value)) {
    if (TIMES.has(name) && typeof inner === 'number') object[camelCase(name.slice(0, -3))] = new Date(inner);
    else if (OFFSETS.has(name) && typeof inner === 'number') object[camelCase(name)] = BigInt(inner);
    else object[camelCase(name)] = MAPS.has(name) ? inner : fromWire(inner);
  }
  return object;
}

/** Names in `snake_case`; what is undefined is left out. @internal */
export function toWire(value: object): Record<string, unknown> {
  const object: Record<string, unknown> = {};
  for (const [name, inner] of Object.entries(value) as [string, unknown][]) {
    if (inner !== undefined) object[snakeCase(name)] = inner;
  }
  return object;
}

function snakeCase(name: string): string {
  return name.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`);
}
