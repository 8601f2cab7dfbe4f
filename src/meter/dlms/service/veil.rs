//! Which attributes and methods hold passwords and keys, by their descriptors: no trace and no answer shows those.

use crate::wire::dlms::{AttributeDescriptor, MethodDescriptor, veil};

/// Whether an attribute holds a password or PIN.
pub(in crate::meter::dlms) const fn is_secret(attribute: AttributeDescriptor) -> bool {
    veil::is_secret(attribute.class_id, attribute.attribute_id)
}

/// Whether a method takes a password or key, wrapped or not.
pub(in crate::meter::dlms) const fn takes_secret(method: MethodDescriptor) -> bool {
    veil::takes_secret(method.class_id, method.method_id)
}
