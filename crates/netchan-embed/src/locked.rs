//! Locked memory. All of the crate's unsafe code is here.

use std::fmt;

use zeroize::{Zeroize as _, Zeroizing};

/// Memory for a secret: never swapped, absent from core dumps, empty in a forked child, and zeroized on drop.
///
/// Each of these holds as far as the system allows, and none is an error where it does not: a program that may lock no
/// more memory (`ulimit -l`) has to work all the same. [`Locked::is_locked`] tells. Where there is no such memory at all, it
/// is a buffer on the heap, zeroized on drop.
///
/// ```
/// use netchan_embed::Locked;
///
/// let mut memory = Locked::zeroed(32);
/// memory.as_bytes_mut().copy_from_slice(&[7; 32]);
/// if !memory.is_locked() {
///     eprintln!("the key could be swapped to disk; raise the limit of locked memory (ulimit -l)");
/// }
/// ```
pub struct Locked {
    backing: Backing,
    /// At most the backing's.
    bytes: usize,
}

enum Backing {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    Mapping(mapping::Mapping),
    Heap(Zeroizing<Box<[u64]>>),
}

impl Locked {
    /// So many bytes, all zero.
    pub fn zeroed(bytes: usize) -> Self {
        let words = bytes.div_ceil(8);
        #[cfg(any(target_os = "linux", target_os = "android"))]
        if let Some(mapping) = mapping::Mapping::new(words) {
            return Self { backing: Backing::Mapping(mapping), bytes };
        }
        Self { backing: Backing::heap(words), bytes }
    }

    /// Whether the system promised never to swap it out.
    pub fn is_locked(&self) -> bool {
        match &self.backing {
            #[cfg(any(target_os = "linux", target_os = "android"))]
            Backing::Mapping(mapping) => mapping.is_locked(),
            Backing::Heap(_) => false,
        }
    }

    /// The bytes.
    pub fn as_bytes(&self) -> &[u8] {
        let words = self.backing.words();
        // SAFETY: the words are initialised, `bytes` is at most their size, bytes need no alignment and any value is one,
        // and the words stay borrowed as long as the result lives.
        unsafe { std::slice::from_raw_parts(words.as_ptr().cast(), self.bytes) }
    }

    /// The bytes.
    pub fn as_bytes_mut(&mut self) -> &mut [u8] {
        let bytes = self.bytes;
        let words = self.as_words_mut();
        // SAFETY: as in `as_bytes`; the words are borrowed exclusively, and whatever bytes are written are valid words.
        unsafe { std::slice::from_raw_parts_mut(words.as_mut_ptr().cast(), bytes) }
    }

    /// As words, the last of which may reach beyond the bytes.
    pub(crate) fn as_words_mut(&mut self) -> &mut [u64] {
        match &mut self.backing {
            #[cfg(any(target_os = "linux", target_os = "android"))]
            Backing::Mapping(mapping) => mapping.words_mut(),
            Backing::Heap(words) => words,
        }
    }

    fn wipe(&mut self) {
        self.as_words_mut().zeroize();
    }
}

impl Backing {
    fn heap(words: usize) -> Self {
        Self::Heap(Zeroizing::new(vec![0; words].into_boxed_slice()))
    }

    fn words(&self) -> &[u64] {
        match self {
            #[cfg(any(target_os = "linux", target_os = "android"))]
            Self::Mapping(mapping) => mapping.words(),
            Self::Heap(words) => words,
        }
    }
}

impl Drop for Locked {
    fn drop(&mut self) {
        // Before the backing is given back.
        self.wipe();
    }
}

impl fmt::Debug for Locked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Locked").field("is_locked", &self.is_locked()).finish_non_exhaustive()
    }
}

#[cfg(any(target_os = "linux", target_os = "android"))]
mod mapping {
    use std::ffi::c_void;
    use std::ptr::{self, NonNull};

    use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mlock, mmap_anonymous, munmap};

    /// Pages of its own, from `start`.
    pub(super) struct Mapping {
        start: NonNull<u64>,
        words: usize,
        is_locked: bool,
    }

    // SAFETY: the mapping has one owner, and nothing about it belongs to a thread; shared access only reads.
    unsafe impl Send for Mapping {}
    // SAFETY: as above.
    unsafe impl Sync for Mapping {}

    impl Mapping {
        /// Zero pages, or `None` where the system gives none.
        pub(super) fn new(words: usize) -> Option<Self> {
            // The system maps no empty ranges, and rounds up to pages by itself.
            let bytes = words.max(1).checked_mul(size_of::<u64>())?;
            let access = ProtFlags::READ | ProtFlags::WRITE;
            // SAFETY: without an address the system picks pages that nothing else uses.
            let start = unsafe { mmap_anonymous(ptr::null_mut(), bytes, access, MapFlags::PRIVATE) }.ok()?;
            // SAFETY: start and size are of the mapping just made. The advice keeps its content and access for this process; a
            // forked child sees zeros instead, which are valid words. (Not DontFork: a child that unwinds through the
            // owner would wipe pages that it does not have.)
            let is_locked = unsafe {
                let _ = madvise(start, bytes, Advice::LinuxDontDump);
                let _ = madvise(start, bytes, Advice::LinuxWipeOnFork);
                mlock(start, bytes).is_ok()
            };
            Some(Self { start: NonNull::new(start.cast())?, words, is_locked })
        }

        pub(super) fn is_locked(&self) -> bool {
            self.is_locked
        }

        pub(super) fn words(&self) -> &[u64] {
            // SAFETY: the mapping is at least that long, page-aligned, initialised with zeros, and mapped until drop.
            unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.words) }
        }

        pub(super) fn words_mut(&mut self) -> &mut [u64] {
            // SAFETY: as in `words`, and borrowed exclusively.
            unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.words) }
        }
    }

    impl Drop for Mapping {
        fn drop(&mut self) {
            let start: *mut c_void = self.start.as_ptr().cast();
            // SAFETY: exactly the pages that `new` mapped, which no reference outlives. Unmapping unlocks.
            let _ = unsafe { munmap(start, self.words.max(1) * size_of::<u64>()) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_length_is_zero_at_first_and_holds_what_is_written() {
        for length in [0usize, 1, 7, 8, 9, 32, 96, 4_095, 4_096, 4_097, 100_000] {
            let heap = Locked { backing: Backing::heap(length.div_ceil(8)), bytes: length };
            for mut memory in [Locked::zeroed(length), heap] {
                assert_eq!(memory.as_bytes(), vec![0; length]);
                memory.as_bytes_mut().fill(7);
                assert_eq!(memory.as_bytes(), vec![7; length]);
                assert_eq!(memory.as_words_mut().len(), length.div_ceil(8));
            }
        }
    }

    #[test]
    fn debug_shows_nothing_of_the_content() {
        let mut memory = Locked::zeroed(8);
        memory.as_bytes_mut().fill(7);
        assert!(!format!("{memory:?}").contains('7'));
    }

    #[cfg(target_os = "linux")]
    mod linux {
        use std::fs::{self, File};
        use std::os::unix::fs::FileExt as _;

        use super::*;

        /// What the system says about the mapping that `address` is in. The system may have joined neighbours that are alike.
        fn flags_at(address: usize) -> Option<String> {
            let maps = fs::read_to_string("/proc/self/smaps").expect("the system's list of mappings");
            let is_its_start = |line: &&str| {
                let number = |text| usize::from_str_radix(text, 16).ok();
                let range = line.split_once(' ').and_then(|(range, _)| range.split_once('-'));
                let ends = range.and_then(|(start, end)| Some((number(start)?, number(end)?)));
                ends.is_some_and(|(start, end)| (start..end).contains(&address))
            };
            let mut lines = maps.lines().skip_while(|line| !is_its_start(line));
            lines.find_map(|line| line.strip_prefix("VmFlags:").map(str::to_owned))
        }

        #[test]
        fn pages_are_locked_not_dumped_and_wiped_in_children() {
            let memory = Locked::zeroed(32);
            let start = memory.as_bytes().as_ptr() as usize;
            let flags = flags_at(start).expect("a mapping of its own");
            let has = |flag| flags.split_whitespace().any(|other| other == flag);
            assert!(has("dd") && has("wf"), "{flags}");
            assert_eq!(has("lo"), memory.is_locked(), "{flags}");
        }

        #[test]
        fn memory_is_wiped_before_it_is_given_back() {
            // Read through the system's eyes, between the wipe and the return of the pages.
            let mut memory = Locked::zeroed(32);
            memory.as_bytes_mut().fill(7);
            let start = memory.as_bytes().as_ptr() as u64;
            let seen = || {
                let mut bytes = [1; 32];
                let memory = File::open("/proc/self/mem").expect("the process's memory");
                memory.read_exact_at(&mut bytes, start).expect("mapped pages");
                bytes
            };
            assert_eq!(seen(), [7; 32]);
            memory.wipe();
            assert_eq!(seen(), [0; 32]);
        }
    }
}
