//! Units and their sizes. Each is exact by definition, but where a comment says otherwise: BIPM's SI brochure, NIST SP 811 for the others.

/// A linear conversion.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Conversion {
    from: Unit,
    to: Unit,
}

#[derive(Clone, Copy, Debug, PartialEq)]
struct Unit {
    quantity: &'static str,
    /// The first is the one that is shown.
    names: &'static [&'static str],
    /// What one of it is in the quantity's base unit. A fraction, so that what is exact stays so.
    size: (f64, f64),
    /// Where its zero lies, in itself, seen from the zero of the base unit: 0 K are -273.15 C.
    zero: f64,
}

impl Conversion {
    /// From one unit to another.
    ///
    /// # Errors
    ///
    /// Says that there is no such unit, and which there are; or that they measure different things.
    pub fn new(from: &str, to: &str) -> Result<Conversion, String> {
        let (from, to) = (unit(from)?, unit(to)?);
        if from.quantity != to.quantity {
            return Err(format!("`{}` is a {} and `{}` a {}", from.names[0], from.quantity, to.names[0], to.quantity));
        }
        Ok(Conversion { from, to })
    }

    /// A number in the other unit.
    pub fn of(&self, number: f64) -> f64 {
        if self.from == self.to {
            return number;
        }
        let ((up, down), (to_up, to_down)) = (self.from.size, self.to.size);
        (number - self.from.zero) * (up * to_down) / (down * to_up) + self.to.zero
    }
}

/// The names that units are shown by.
pub fn names() -> impl Iterator<Item = &'static str> {
    UNITS.iter().map(|unit| unit.names[0])
}

fn unit(name: &str) -> Result<Unit, String> {
    let found = UNITS.iter().find(|unit| unit.names.contains(&name));
    found.copied().ok_or_else(|| format!("there is no unit `{name}`; there are: {}", names().collect::<Vec<_>>().join(", ")))
}

const fn sized(quantity: &'static str, names: &'static [&'static str], up: f64, down: f64) -> Unit {
    Unit { quantity, names, size: (up, down), zero: 0.0 }
}

const fn temperature(names: &'static [&'static str], up: f64, down: f64, zero: f64) -> Unit {
    Unit { quantity: "temperature", names, size: (up, down), zero }
}

/// A pound in kilograms, and the force of gravity on one kilogram in newtons.
const POUND: f64 = 0.453_592_37;
const GRAVITY: f64 = 9.806_65;

#[rustfmt::skip]
const UNITS: &[Unit] = &[
    temperature(&["C", "\u{b0}C", "celsius"], 1.0, 1.0, -273.15),
    temperature(&["F", "\u{b0}F", "fahrenheit"], 5.0, 9.0, -459.67),
    temperature(&["K", "kelvin"], 1.0, 1.0, 0.0),
    sized("pressure", &["Pa"], 1.0, 1.0),
    sized("pressure", &["hPa"], 100.0, 1.0),
    sized("pressure", &["kPa"], 1e3, 1.0),
    sized("pressure", &["MPa"], 1e6, 1.0),
    sized("pressure", &["mbar"], 100.0, 1.0),
    sized("pressure", &["bar"], 1e5, 1.0),
    sized("pressure", &["psi"], POUND * GRAVITY, 0.0254 * 0.0254),
    sized("pressure", &["atm"], 101_325.0, 1.0),
    sized("pressure", &["mmHg"], 133.322_387_415, 1.0),
    sized("length", &["mm"], 1.0, 1e3),
    sized("length", &["cm"], 1.0, 100.0),
    sized("length", &["m"], 1.0, 1.0),
    sized("length", &["km"], 1e3, 1.0),
    sized("length", &["in"], 254.0, 1e4),
    sized("length", &["ft"], 3048.0, 1e4),
    sized("length", &["yd"], 9144.0, 1e4),
    sized("length", &["mi"], 1_609_344.0, 1e3),
    sized("length", &["nmi"], 1852.0, 1.0),
    sized("speed", &["m/s"], 1.0, 1.0),
    sized("speed", &["km/h"], 10.0, 36.0),
    sized("speed", &["mph"], 1_609_344.0, 3.6e6),
    sized("speed", &["kn"], 1852.0, 3600.0),
    sized("speed", &["ft/s"], 3048.0, 1e4),
    sized("mass", &["g"], 1.0, 1e3),
    sized("mass", &["kg"], 1.0, 1.0),
    sized("mass", &["t"], 1e3, 1.0),
    sized("mass", &["lb"], POUND, 1.0),
    sized("mass", &["oz"], POUND, 16.0),
    sized("volume", &["ml"], 1.0, 1e6),
    sized("volume", &["l"], 1.0, 1e3),
    sized("volume", &["m3"], 1.0, 1.0),
    sized("volume", &["gal"], 3.785_411_784, 1e3), // the one of the USA
    sized("flow", &["l/min"], 1.0, 6e4),
    sized("flow", &["l/s"], 1.0, 1e3),
    sized("flow", &["m3/h"], 1.0, 3600.0),
    sized("flow", &["gpm"], 3.785_411_784, 6e4),
    sized("energy", &["J"], 1.0, 1.0),
    sized("energy", &["kJ"], 1e3, 1.0),
    sized("energy", &["MJ"], 1e6, 1.0),
    sized("energy", &["Wh"], 3600.0, 1.0),
    sized("energy", &["kWh"], 3.6e6, 1.0),
    sized("energy", &["MWh"], 3.6e9, 1.0),
    sized("power", &["W"], 1.0, 1.0),
    sized("power", &["kW"], 1e3, 1.0),
    sized("power", &["MW"], 1e6, 1.0),
    sized("power", &["hp"], 550.0 * 0.3048 * POUND * GRAVITY, 1.0), // the mechanical one
    sized("duration", &["ms"], 1.0, 1e3),
    sized("duration", &["s"], 1.0, 1.0),
    sized("duration", &["min"], 60.0, 1.0),
    sized("duration", &["h"], 3600.0, 1.0),
];

#[cfg(test)]
mod tests {
    use super::{Conversion, UNITS};

    #[test]
    fn well_known_values_come_out() {
        for (from, to, number, expected) in [
            ("C", "F", 100.0, 212.0),
            ("F", "C", -40.0, -40.0),
            ("C", "K", 0.0, 273.15),
            ("fahrenheit", "kelvin", -459.67, 0.0),
            ("bar", "psi", 1.0, 14.503_773_773),
            ("psi", "kPa", 1.0, 6.894_757_293),
            ("atm", "bar", 1.0, 1.01325),
            ("atm", "mmHg", 1.0, 759.999_891_7),
            ("m", "ft", 1.0, 3.280_839_895),
            ("mi", "km", 1.0, 1.609_344),
            ("km/h", "m/s", 36.0, 10.0),
            ("mph", "km/h", 1.0, 1.609_344),
            ("kn", "km/h", 1.0, 1.852),
            ("lb", "kg", 1.0, 0.453_592_37),
            ("gal", "l", 1.0, 3.785_411_784),
            ("gpm", "l/min", 1.0, 3.785_411_784),
            ("m3/h", "l/min", 1.0, 16.666_666_667),
            ("kWh", "MJ", 1.0, 3.6),
            ("hp", "W", 1.0, 745.699_871_582),
            ("h", "ms", 1.0, 3.6e6),
        ] {
            let found = Conversion::new(from, to).expect("units").of(number);
            assert!((found - expected).abs() <= 1e-7 * expected.abs().max(1e-3), "{number} {from} are {expected} {to}, not {found}");
        }
    }

    #[test]
    fn there_and_back_is_where_it_began() {
        for from in UNITS {
            for to in UNITS.iter().filter(|to| to.quantity == from.quantity) {
                let [there, back] = [Conversion { from: *from, to: *to }, Conversion { from: *to, to: *from }];
                for number in [-40.0, 0.0, 1.0, 1234.5] {
                    let found = back.of(there.of(number));
                    assert!((found - number).abs() < 1e-9 * number.abs().max(1000.0), "{number} {from:?} {to:?}: {found}");
                }
            }
        }
    }

    #[test]
    fn no_name_is_there_twice() {
        let mut names: Vec<&str> = UNITS.iter().flat_map(|unit| unit.names).copied().collect();
        names.sort_unstable();
        assert!(names.windows(2).all(|pair| pair[0] != pair[1]), "{names:?}");
    }
}
