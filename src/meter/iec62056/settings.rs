//! The words of this protocol's settings.

use crate::choices;

choices! {
    /// Whether a readout must end with ETX and a block check.
    pub enum BlockCheck {
        /// It must.
        Required = "required",
        /// One that ends with "!" and then silence will do; a check that is there must be right.
        Optional = "optional",
    }
}

choices! {
    /// How the values of an IEC 62056-21 meter are read.
    pub enum IecAccess {
        /// The table that it sends after its sign-on.
        Readout = "readout",
        /// One by one, as listed in values, in programming mode.
        Programming = "programming",
    }
}

choices! {
    /// The command that reads a value in programming mode.
    pub enum IecRead {
        /// As the standard's text.
        R1 = "R1",
        /// Formatted.
        R2 = "R2",
        /// As R1, in partial blocks.
        R3 = "R3",
        /// As R2, in partial blocks.
        R4 = "R4",
        /// National or of the maker.
        R5 = "R5",
        /// As R5, in partial blocks.
        R6 = "R6",
    }
}

choices! {
    /// The command that reads a load profile.
    pub enum IecProfileRead {
        /// In one block.
        R5 = "R5",
        /// In partial blocks.
        R6 = "R6",
    }
}

choices! {
    /// How the password of programming mode is sent.
    pub enum IecPassword {
        /// As it stands in the file.
        P1 = "P1",
        /// As the result of a secure algorithm that was computed elsewhere.
        P2 = "P2",
    }
}

choices! {
    /// Which end of its interval a time stamp tells.
    pub enum ProfileStamp {
        /// When it ended.
        End = "end",
        /// When it began.
        Begin = "begin",
    }
}

choices! {
    /// How the times of a request are written.
    pub enum RequestTime {
        /// With a leading 0 for normal time: 0YYMMDDhhmm.
        Season = "season",
        /// YYMMDDhhmm.
        Plain = "plain",
    }
}

choices! {
    /// Who knows whether the meter's clock is on summer time.
    pub enum SummerTime {
        /// The meter: by its season digit; without one its clock has no summer time.
        Meter = "meter",
        /// The calendar of the European Union, where the meter sends no season digit.
        Eu = "eu",
    }
}
