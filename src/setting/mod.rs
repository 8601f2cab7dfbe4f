//! How a room describes its part of weir.toml: name, meaning, type and default in one place.
//!
//! A room writes its settings once with [`settings!`](crate::settings) and [`choices!`](crate::choices);
//! reading (all mistakes at once, with line and column), `weir check --print` and docs/config.md
//! all come from that one description. Invariants: reading never stops at the first mistake, a
//! value that was read can't hold nonsense, and a secret is a file's path, never its content.
//! It never opens a file: `config` does.

mod kind;
mod node;
mod printed;
mod problem;
mod topic;

pub use kind::{At, Count, SecretFile, Size, duration};
pub use node::{Field, Node, Shape, Table, Written, stand_in};
pub use printed::Printed;
pub use problem::{Problem, Problems, Severity};
pub use topic::{Identity, Text, Topic, substituted};

/// A value that can be read from weir.toml, printed back and documented.
pub trait Setting: Sized {
    /// What a person may write, for docs/config.md.
    fn shape() -> Shape;

    /// Reads the value; says every mistake to `problems` and returns `None` when there was one.
    fn read(node: &Node<'_>, problems: &mut Problems) -> Option<Self>;

    /// What stands in for a key that is not there and has no default; `None` makes it required.
    fn absent() -> Option<Self> {
        None
    }

    /// What stands in for a value that could not be read, so that the rest of the file is still
    /// checked; settings with an error are never used.
    fn stand_in() -> Option<Self> {
        Self::absent()
    }

    /// The effective value, for `weir check --print`.
    fn printed(&self) -> Printed;
}

/// Defines a table of weir.toml as a struct: each field's doc comment is its documentation, the
/// text after `=` is its default as TOML; without one it is required unless it is an `Option`.
/// `remembers NAME` after the struct adds a field that knows which keys were written, and where.
#[macro_export]
macro_rules! settings {
    (
        $(#[doc = $about:literal])*
        pub struct $name:ident {
            $( $(#[doc = $doc:literal])* pub $field:ident : $ty:ty $(= $default:tt)? ),* $(,)?
        }
        $(remembers $written:ident)?
    ) => {
        $(#[doc = $about])*
        #[derive(Debug, Clone)]
        pub struct $name {
            $( $(#[doc = $doc])* pub $field: $ty, )*
            $(
                /// Which of its keys stand in the file, and where.
                pub $written: $crate::setting::Written,
            )?
        }

        impl $crate::setting::Setting for $name {
            fn shape() -> $crate::setting::Shape {
                $crate::setting::Shape::Table {
                    about: concat!($($about, "\n",)* ""),
                    fields: vec![ $( $crate::setting::Field {
                        key: stringify!($field).trim_start_matches("r#"),
                        doc: concat!($($doc, "\n",)* ""),
                        default: $crate::settings!(@default $($default)?),
                        required: <$ty as $crate::setting::Setting>::absent().is_none(),
                        shape: <$ty as $crate::setting::Setting>::shape(),
                    }, )* ],
                }
            }

            fn read(
                node: &$crate::setting::Node<'_>,
                problems: &mut $crate::setting::Problems,
            ) -> Option<Self> {
                let mut table = node.table(problems)?;
                $( let $field = table.take::<$ty>(
                    stringify!($field).trim_start_matches("r#"),
                    $crate::settings!(@default $($default)?),
                    problems,
                ); )*
                $( let $written = table.written(); )?
                table.finish(problems);
                Some(Self { $( $field: $field?, )* $( $written, )? })
            }

            fn stand_in() -> Option<Self> {
                Some(Self { $( $field: $crate::setting::stand_in::<$ty>(
                    $crate::settings!(@default $($default)?),
                )?, )* $( $written: $crate::setting::Written::default(), )? })
            }

            fn printed(&self) -> $crate::setting::Printed {
                $crate::setting::Printed::Table(vec![ $( (
                    stringify!($field).trim_start_matches("r#"),
                    $crate::setting::Setting::printed(&self.$field),
                ), )* ])
            }
        }
    };
    (@default) => { None };
    (@default $default:tt) => { Some(stringify!($default)) };
}

/// Defines a setting that is one of a few words.
#[macro_export]
macro_rules! choices {
    (
        $(#[doc = $about:literal])*
        pub enum $name:ident { $( $(#[doc = $doc:literal])* $variant:ident = $word:literal ),* $(,)? }
    ) => {
        $(#[doc = $about])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum $name { $( $(#[doc = $doc])* $variant, )* }

        impl $name {
            /// The word that stands for it in weir.toml.
            pub const fn word(self) -> &'static str {
                match self { $( Self::$variant => $word, )* }
            }
        }

        impl $crate::setting::Setting for $name {
            fn shape() -> $crate::setting::Shape {
                $crate::setting::Shape::Choice(vec![ $( ($word, concat!($($doc, "\n",)* "")), )* ])
            }

            fn read(
                node: &$crate::setting::Node<'_>,
                problems: &mut $crate::setting::Problems,
            ) -> Option<Self> {
                let chosen = node.choice(&[ $( $word, )* ], problems)?;
                [ $( Self::$variant, )* ].into_iter().find(|c| c.word() == chosen)
            }

            fn printed(&self) -> $crate::setting::Printed {
                $crate::setting::Printed::text(self.word())
            }
        }
    };
}
