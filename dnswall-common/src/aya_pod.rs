//! Tells aya which types may be copied to and from maps as bytes.

use crate::counter::{ReasonCounter, RuleCounter};
use crate::event::{Refused, RefusedKey};
use crate::identity::{CgroupKey, ExeKey, KernelOffsets, NameKey, PathKey, UserKey};
use crate::image::{Active, Cell, ImageHeader, Meta, Term};
use crate::listed::{Bucket, ExceptionKey};
use crate::named::{Asked, Learned, LearnedKey, Pattern, PatternKey};
use crate::search::{Node4, Node6, NodePort};
use crate::socket::{ReplyKey, SocketState};
use crate::who::Who;
use aya::Pod;

macro_rules! pod {
    ($($type:ty),* $(,)?) => {
        $(
            // SAFETY: `repr(C)`, integers only, padding explicit (sizes are asserted beside the type): any bytes are a
            // value, and every byte of a value is initialised.
            unsafe impl Pod for $type {}
        )*
    };
}

pod!(Active, Cell, ImageHeader, Meta, Term, Node4, Node6, NodePort, Who, RuleCounter, ReasonCounter);
pod!(Refused, RefusedKey, CgroupKey, ExeKey, KernelOffsets, NameKey, PathKey, UserKey);
pod!(ReplyKey, SocketState, Bucket, ExceptionKey, Asked, Learned, LearnedKey, Pattern, PatternKey);
