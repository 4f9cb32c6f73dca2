//! Geohashes (Gustavo Niemeyer, 2008): the earth is halved again and again, east and west first, then north and south, and so on; each half is
//! a bit, and five bits are a character. So a prefix is a larger cell around.
//!
//! ```text
//!  characters   1        2       3      4      5       6       7       8
//!  cell, km     5000     1250    156    39     4.9     1.2     0.15    0.038    wide, at the equator
//!               5000     625     156    19.5   4.9     0.61    0.15    0.019    high
//! ```

/// The geohash of a place; none if it is not on earth.
pub(crate) fn of(lat: f64, lon: f64) -> Option<[u8; CHARACTERS_MAX]> {
    if !(-90.0..=90.0).contains(&lat) || !(-180.0..=180.0).contains(&lon) {
        return None;
    }
    let mut halves = [(lon, -180.0, 180.0), (lat, -90.0, 90.0)];
    let mut geohash = [0; CHARACTERS_MAX];
    let mut bits = 0;
    for character in &mut geohash {
        let mut index = 0;
        for _ in 0..BITS_PER_CHARACTER {
            let (place, low, high) = &mut halves[bits % 2];
            let middle = f64::midpoint(*low, *high);
            let is_upper = *place >= middle;
            *(if is_upper { low } else { high }) = middle;
            index = index * 2 + usize::from(is_upper);
            bits += 1;
        }
        *character = ALPHABET[index];
    }
    Some(geohash)
}

/// As long as geohashes get: cells of 4 by 2 cm.
pub(crate) const CHARACTERS_MAX: usize = 12;

const BITS_PER_CHARACTER: usize = 5;

/// Digits and letters without those that are taken for each other.
const ALPHABET: &[u8; 32] = b"0123456789bcdefghjkmnpqrstuvwxyz";

#[cfg(test)]
mod tests {
    use super::of;

    #[test]
    fn well_known_places_have_their_geohash() {
        for (lat, lon, expected) in [
            (57.64911, 10.40744, "u4pruydqqvj"),
            (42.605, -5.603, "ezs42"),
            (48.8583, 2.2945, "u09tun"),
            (-25.382_708, -49.265_506, "6gkzwgjzn820"),
            (0.0, 0.0, "s00000000000"),
            (90.0, 180.0, "zzzzzzzzzzzz"),
            (-90.0, -180.0, "000000000000"),
        ] {
            let found = of(lat, lon).expect("it is on earth");
            assert!(found.starts_with(expected.as_bytes()), "{lat} {lon}: {}", String::from_utf8_lossy(&found));
        }
    }

    #[test]
    fn what_is_not_on_earth_has_none() {
        for (lat, lon) in [(90.000_1, 0.0), (-91.0, 0.0), (0.0, 180.1), (0.0, -1e9), (f64::NAN, 0.0), (0.0, f64::INFINITY)] {
            assert_eq!(of(lat, lon), None, "{lat} {lon}");
        }
    }
}
