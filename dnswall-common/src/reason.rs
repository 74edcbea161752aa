//! Why a verdict is what it is. Numbers are never reused.

/// Allow or deny.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// The flow may pass.
    Allow = 1,
    /// The flow is refused (or, in audit mode, would be).
    Deny = 2,
}

macro_rules! reasons {
    ($($(#[$doc:meta])* $name:ident = $number:literal, $text:literal;)*) => {
        /// The numbered reason of a verdict.
        #[repr(u8)]
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Reason { $($(#[$doc])* $name = $number,)* }

        impl Reason {
            /// Every reason, in the order of its number.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// The reason with this number.
            pub const fn from_number(number: u8) -> Option<Self> {
                match number { $($number => Some(Self::$name),)* _ => None }
            }

            /// The stable name, as alerts, `status` and metrics show it.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }
        }
    };
}

reasons! {
    /// An `[[allow]]`, `[[deny]]` or `[dns]` rule decided.
    Rule = 1, "rule";
    /// No rule names this destination, protocol and port.
    NoRule = 2, "no-rule";
    /// A rule names this destination, protocol and port, but for other workloads.
    NotForThisWorkload = 3, "not-for-this-workload";
    /// The headers cannot be read to the end.
    Malformed = 4, "malformed";
    /// An outbound fragment (sockets never send them past this hook).
    Fragment = 5, "fragment";
    /// Source routing: an IPv4 LSRR/SSRR option or an IPv6 routing header.
    SourceRoute = 6, "source-route";
    /// More IPv6 extension headers than are walked.
    ExtensionHeaders = 7, "extension-headers";
    /// A raw socket that no `[raw]` entry allows.
    RawSocket = 8, "raw-socket";
    /// Nobody may ask a DNS server on this host, or not from there.
    NotServed = 9, "not-served";
    /// No policy has been published yet.
    NoPolicy = 10, "no-policy";
    /// A map the verdict needs could not be read.
    ImageUnreadable = 11, "image-unreadable";
    /// A socket of a kind whose traffic the wall does not see, and no `[unjudged]` entry allows it.
    UnjudgedSocket = 12, "unjudged-socket";
    /// A device whose traffic the wall does not see, and no `[unjudged]` entry allows it.
    UnjudgedDevice = 13, "unjudged-device";
    /// The source is not an address of this host, and no `[unjudged]` entry names the owner.
    ForgedSource = 14, "forged-source";
    /// For a tunnel of this host's, which sends on what is inside: over loopback, or in what this host hears of its own
    /// groups and broadcasts. And no `[unjudged]` entry names the owner.
    Tunnel = 15, "tunnel";
    /// A block list has the name, or one above it.
    ListedName = 16, "listed-name";
    /// A type of question that `deny-types` names.
    QuestionType = 17, "question-type";
    /// Not one question that can be read to the end: cut off, several, pointers in the name, records before the question's end.
    MalformedQuestion = 18, "malformed-question";
    /// A part of a message, or more than one in a packet: what the other end reads together is not seen together.
    SplitQuestion = 19, "split-question";
    /// To a DNS server, and no query: an answer, an update, a notification.
    NotAQuestion = 20, "not-a-question";
    /// The name has more labels than are looked at.
    TooManyLabels = 21, "too-many-labels";
    /// In memory that its sender can still write to, or may be able to: what is seen need not be what leaves.
    UnstableQuestion = 22, "unstable-question";
    /// Only rules by name lead there, and no answer that counts has given this address to this workload for one of their names,
    /// or not lately.
    NameUnknown = 23, "name-unknown";
    /// A rule refuses the name that is asked for.
    DeniedName = 24, "denied-name";
    /// The name is longer than a limit says.
    NameLength = 25, "name-length";
    /// A label of it is.
    LabelLength = 26, "label-length";
    /// It has more labels than a limit says.
    LabelCount = 27, "label-count";
    /// The workload asks more in a second than a limit says.
    QuestionRate = 28, "question-rate";
    /// It has asked for more different names below one domain in a minute.
    NamesPerDomain = 29, "names-per-domain";
    /// It has asked for more names in a minute that do not exist.
    NxdomainRate = 30, "nxdomain-rate";
    /// A question that may be asked, told of because the policy wants to know.
    Asked = 31, "asked";
    /// The packet never leaves this host.
    Loopback = 32, "loopback";
    /// Part of a connection that was allowed when it began.
    Established = 33, "established";
    /// Part of a connection that began at the other end.
    Inbound = 34, "inbound";
    /// An answer to a datagram received on this socket.
    Reply = 35, "reply";
    /// Something every host needs: neighbour discovery, multicast listening, DHCP, ICMP errors.
    Essential = 36, "essential";
    /// Part of a connection that is older than the wall.
    Preexisting = 37, "preexisting";
    /// Not an IP packet of this host's (the kernel's own packets without a socket of a process).
    KernelOwn = 38, "kernel-own";
    /// What it was answered in a minute, to questions of this type, weighs more than a limit says.
    AnswerBytes = 39, "answer-bytes";
}

/// One more than the greatest number of a reason: the size of a table indexed by reason.
pub const REASON_TABLE: usize = 64;

/// The answer for one flow.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// What happens.
    pub action: Action,
    /// Why.
    pub reason: Reason,
    /// Zero.
    pub padding: u16,
    /// Which rule of the policy decided; [`crate::image::RULE_DEFAULT`] when none did.
    pub rule: u32,
}

const _: () = assert!(size_of::<Verdict>() == 8);

impl Verdict {
    /// An answer a rule gave.
    #[inline(always)]
    pub const fn by_rule(action: Action, rule: u32) -> Self {
        Self { action, reason: Reason::Rule, padding: 0, rule }
    }

    /// An answer no rule of the policy gave.
    #[inline(always)]
    pub const fn without_rule(action: Action, reason: Reason) -> Self {
        Self { action, reason, padding: 0, rule: crate::image::RULE_DEFAULT }
    }
}

/// A verdict's bytes, for a function that answers with a number. Never 0.
#[inline(always)]
pub const fn pack(verdict: Verdict) -> u64 {
    // SAFETY: 8 bytes, all of them written.
    unsafe { core::mem::transmute::<Verdict, u64>(verdict) }
}

/// Whether such a number, or 0, is a refusal.
#[inline(always)]
pub const fn is_deny(number: u64) -> bool {
    // The action is the verdict's first byte.
    number as u8 == Action::Deny as u8
}

/// The verdict in such a number.
///
/// # Safety
/// The number is what [`pack`] gave.
#[inline(always)]
pub const unsafe fn unpack(number: u64) -> Verdict {
    // SAFETY: the caller's: the bytes of a verdict.
    unsafe { core::mem::transmute::<u64, Verdict>(number) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_packed_refusal_is_known() {
        assert!(is_deny(pack(Verdict::without_rule(Action::Deny, Reason::ListedName))));
        assert!(!is_deny(pack(Verdict::without_rule(Action::Allow, Reason::ListedName))) && !is_deny(0));
    }

    #[test]
    fn numbers_lead_back_to_their_reasons_and_fit_the_table() {
        for reason in Reason::ALL {
            assert_eq!(Reason::from_number(*reason as u8), Some(*reason));
            assert!((*reason as usize) < REASON_TABLE);
        }
        assert_eq!(Reason::from_number(0), None);
    }
}
