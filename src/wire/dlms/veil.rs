//! Which attributes and methods hold passwords and keys (IEC 62056-6-2): no trace and no answer shows those.

/// Whether an attribute of a class holds a password or PIN: that of an association, of PPP, of a modem and of SMTP.
pub const fn is_secret(class: u16, attribute: i8) -> bool {
    matches!((class, attribute), (15, 7) | (44, 5) | (45, 3) | (46, 4))
}

/// Whether a method of a class takes a password or key, wrapped or not: those of associations, the security setup, an
/// M-Bus client.
pub const fn takes_secret(class: u16, method: i8) -> bool {
    matches!((class, method), (12, 5 | 6) | (15, 2) | (64, 2 | 3) | (72, 7 | 8))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_and_keys_are_known_by_class_and_number() {
        assert!([(15, 7), (44, 5), (45, 3), (46, 4)].iter().all(|(class, number)| is_secret(*class, *number)));
        let methods = [(12, 5), (12, 6), (15, 2), (64, 2), (64, 3), (72, 7), (72, 8)];
        assert!(methods.iter().all(|(class, number)| takes_secret(*class, *number)));
        assert!(!is_secret(3, 2) && !is_secret(15, 2) && !takes_secret(15, 7) && !takes_secret(64, 1));
    }
}
