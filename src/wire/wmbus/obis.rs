//! OBIS codes of the values of the basic media (OMS Specification volume 2, annex A; EN 13757-1).
//!
//! Only what the annex gives a code: totals, due date values and the usual present values. A value
//! without a code keeps its name alone.

/// Device types and the medium of their codes (the group A).
const MEDIA: &[(u8, u8)] = &[
    (0x02, ELECTRICITY),
    (0x08, 4),
    (0x0A, COOLING),
    (0x0B, COOLING),
    (0x04, HEAT),
    (0x0C, HEAT),
    (0x03, 7),
    (0x07, 8),
    (0x16, 8),
    (0x06, 9),
    (0x15, 9),
];

const ELECTRICITY: u8 = 1;
const COOLING: u8 = 5;
const HEAT: u8 = 6;

/// Medium, name of the value, groups C, D and E of its code.
const CODES: &[(u8, &str, &str)] = &[
    (ELECTRICITY, "energy", "1.8.0"),
    (ELECTRICITY, "energy:t1", "1.8.1"),
    (ELECTRICITY, "energy:t2", "1.8.2"),
    (ELECTRICITY, "energy:t3", "1.8.3"),
    (ELECTRICITY, "energy:t4", "1.8.4"),
    (ELECTRICITY, "energy:negative", "2.8.0"),
    (ELECTRICITY, "energy:negative:t1", "2.8.1"),
    (ELECTRICITY, "energy:negative:t2", "2.8.2"),
    (ELECTRICITY, "power", "1.7.0"),
    (ELECTRICITY, "power:negative", "2.7.0"),
    (4, "heat_cost", "1.0.0"),
    (4, "heat_cost[1]", "1.2.0"),
    (COOLING, "energy", "1.0.0"),
    (COOLING, "energy[1]", "1.2.0"),
    (COOLING, "volume", "2.0.0"),
    (COOLING, "volume[1]", "2.2.0"),
    (COOLING, "power", "8.0.0"),
    (COOLING, "volume_flow", "9.0.0"),
    (COOLING, "flow_temperature", "10.0.0"),
    (COOLING, "return_temperature", "11.0.0"),
    (COOLING, "temperature_difference", "12.0.0"),
    (HEAT, "energy", "1.0.0"),
    (HEAT, "energy[1]", "1.2.0"),
    (HEAT, "volume", "2.0.0"),
    (HEAT, "volume[1]", "2.2.0"),
    (HEAT, "power", "8.0.0"),
    (HEAT, "volume_flow", "9.0.0"),
    (HEAT, "flow_temperature", "10.0.0"),
    (HEAT, "return_temperature", "11.0.0"),
    (HEAT, "temperature_difference", "12.0.0"),
    (7, "volume", "3.0.0"),
    (7, "volume:base_conditions", "3.2.0"),
    (8, "volume", "1.0.0"),
    (8, "volume[1]", "1.2.0"),
    (8, "volume_flow", "2.0.0"),
    (9, "volume", "1.0.0"),
    (9, "volume[1]", "1.2.0"),
    (9, "volume_flow", "2.0.0"),
];

/// The code of a value of a device type, such as `8-0:1.0.0*255`; `None` when it has none.
pub fn code(device: u8, name: &str) -> Option<String> {
    let (_, medium) = MEDIA.iter().find(|(of, _)| *of == device)?;
    let (_, _, code) = CODES.iter().find(|(of, named, _)| of == medium && *named == name)?;
    Some(format!("{medium}-0:{code}*255"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_has_the_code_of_its_medium_or_none() {
        assert_eq!(code(0x07, "volume").as_deref(), Some("8-0:1.0.0*255"));
        assert_eq!(code(0x16, "volume[1]").as_deref(), Some("8-0:1.2.0*255"));
        assert_eq!(code(0x06, "volume").as_deref(), Some("9-0:1.0.0*255"));
        assert_eq!(code(0x04, "volume").as_deref(), Some("6-0:2.0.0*255"));
        assert_eq!(code(0x02, "energy:t1").as_deref(), Some("1-0:1.8.1*255"));
        assert_eq!((code(0x07, "energy"), code(0x37, "volume"), code(0x07, "volume[2]")), (None, None, None));
    }

    #[test]
    fn no_value_has_two_codes() {
        for (at, (medium, name, _)) in CODES.iter().enumerate() {
            assert!(!CODES[..at].iter().any(|(m, n, _)| m == medium && n == name), "{medium} {name}");
        }
    }
}
