//! Which attributes and methods hold passwords and keys (IEC 62056-6-2): no trace and no answer shows those.

use crate::wire::dlms::{AttributeDescriptor, MethodDescriptor};

/// Whether an attribute holds a password or PIN: that of an association, of PPP, of a modem and of SMTP.
pub(in crate::meter::dlms) const fn is_secret(attribute: AttributeDescriptor) -> bool {
    matches!((attribute.class_id, attribute.attribute_id), (15, 7) | (44, 5) | (45, 3) | (46, 4))
}

/// Whether a method takes a password or key, wrapped or not: those of associations, the security setup, an M-Bus client.
pub(in crate::meter::dlms) const fn takes_secret(method: MethodDescriptor) -> bool {
    matches!((method.class_id, method.method_id), (12, 5 | 6) | (15, 2) | (64, 2 | 3) | (72, 7 | 8))
}
