//! Takes an enum whose variants have names, gives it those: in JSON and text, and from there back. One table for all of it.

/// The enum, all of them, their names, and who they are by name.
macro_rules! named {
    (
        $(#[$meta:meta])*
        pub enum $type:ident { $($(#[$about:meta])* $variant:ident = $name:literal,)+ }
    ) => {
        $(#[$meta])*
        pub enum $type { $($(#[$about])* $variant,)+ }

        impl $type {
            /// All of them, in this order.
            pub const ALL: [Self; Self::NAMES.len()] = [$(Self::$variant,)+];
            /// Their names, in the same order.
            pub const NAMES: &[&str] = &[$($name,)+];

            /// Its name in JSON and text.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)+ }
            }

            /// The one with this name.
            pub fn named(name: &str) -> Option<Self> {
                match name { $($name => Some(Self::$variant),)+ _ => None }
            }
        }

        impl std::fmt::Display for $type {
            fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                formatter.pad(self.name())
            }
        }

        impl serde::Serialize for $type {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.name())
            }
        }

        impl<'de> serde::Deserialize<'de> for $type {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let name = <String as serde::Deserialize>::deserialize(deserializer)?;
                Self::named(&name).ok_or_else(|| serde::de::Error::unknown_variant(&name, Self::NAMES))
            }
        }
    };
}

pub(super) use named;

#[cfg(test)]
mod tests {
    use crate::alert::{Kind, Severity};

    #[test]
    fn what_is_written_is_read_back_and_nothing_else_is() {
        for kind in Kind::ALL {
            let json = serde_json::to_string(&kind).unwrap();
            assert_eq!(json, format!("\"{kind}\""));
            assert_eq!(serde_json::from_str::<Kind>(&json).unwrap(), kind);
        }
        for severity in Severity::ALL {
            let json = serde_json::to_string(&severity).unwrap();
            assert_eq!(json, format!("\"{severity}\""));
            assert_eq!(serde_json::from_str::<Severity>(&json).unwrap(), severity);
        }
        // As an escape may have it.
        assert_eq!(serde_json::from_str::<Severity>(r#""h\u0069gh""#).unwrap(), Severity::High);
        let error = serde_json::from_str::<Severity>("\"bad\"").unwrap_err().to_string();
        assert!(error.contains("`bad`") && error.contains("`critical`"), "{error}");
        for wrong in ["\"High\"", "\"\"", "3", "null", "{\"high\":null}"] {
            assert!(serde_json::from_str::<Severity>(wrong).is_err(), "{wrong}");
        }
        let names: std::collections::BTreeSet<&str> = Kind::NAMES.iter().copied().collect();
        assert_eq!(names.len(), Kind::ALL.len(), "a name is one kind's");
    }
}
