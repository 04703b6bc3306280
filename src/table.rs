//! A bounded table whose keys are never reused: each slot counts its users.

/// Names one entry of one table.
pub trait Key: Copy {
    /// The key of the `generation`-th user of a slot.
    fn new(index: u32, generation: u32) -> Self;
    /// The slot.
    fn index(self) -> u32;
    /// How many used the slot before.
    fn generation(self) -> u32;
}

/// Defines the key type of a table.
macro_rules! key {
    ($(#[doc = $doc:literal])+ $name:ident) => {
        $(#[doc = $doc])+
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name {
            /// The slot.
            pub index: u32,
            /// How often the slot was used before.
            pub generation: u32,
        }

        impl $crate::table::Key for $name {
            fn new(index: u32, generation: u32) -> Self {
                Self { index, generation }
            }
            fn index(self) -> u32 {
                self.index
            }
            fn generation(self) -> u32 {
                self.generation
            }
        }
    };
}
pub(crate) use key;

/// The table.
#[derive(Debug)]
pub struct Table<K, T> {
    slots: Vec<Entry<T>>,
    free: Vec<u32>,
    len: usize,
    len_max: usize,
    key: std::marker::PhantomData<K>,
}

#[derive(Debug)]
struct Entry<T> {
    generation: u32,
    value: Option<T>,
}

impl<K: Key, T> Table<K, T> {
    /// An empty table that will hold at most `len_max` entries.
    pub fn new(len_max: usize) -> Self {
        Self { slots: Vec::new(), free: Vec::new(), len: 0, len_max, key: std::marker::PhantomData }
    }

    /// Adds an entry, or gives it back if the table is full.
    pub fn insert(&mut self, value: T) -> Result<K, T> {
        if self.len_max <= self.len {
            return Err(value);
        }
        self.len += 1;
        if let Some(index) = self.free.pop()
            && let Some(entry) = self.slots.get_mut(index as usize)
        {
            entry.value = Some(value);
            return Ok(K::new(index, entry.generation));
        }
        let index = u32::try_from(self.slots.len()).unwrap_or(u32::MAX);
        self.slots.push(Entry { generation: 0, value: Some(value) });
        Ok(K::new(index, 0))
    }

    /// The entry, unless it is gone.
    pub fn get(&self, key: K) -> Option<&T> {
        let entry = self.slots.get(key.index() as usize)?;
        entry.value.as_ref().filter(|_| entry.generation == key.generation())
    }

    /// The entry, unless it is gone.
    pub fn get_mut(&mut self, key: K) -> Option<&mut T> {
        let entry = self.slots.get_mut(key.index() as usize)?;
        entry.value.as_mut().filter(|_| entry.generation == key.generation())
    }

    /// Takes the entry out. Its key is never given again.
    pub fn remove(&mut self, key: K) -> Option<T> {
        let entry = self.slots.get_mut(key.index() as usize)?;
        if entry.generation != key.generation() {
            return None;
        }
        let value = entry.value.take()?;
        entry.generation = entry.generation.wrapping_add(1);
        self.free.push(key.index());
        self.len -= 1;
        Some(value)
    }

    /// Entries in the table.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is no entry.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// All entries, in no particular order.
    pub fn values(&self) -> impl Iterator<Item = &T> {
        self.slots.iter().filter_map(|entry| entry.value.as_ref())
    }

    /// All keys, in no particular order.
    pub fn keys(&self) -> Vec<K> {
        let used = (0u32..).zip(&self.slots).filter(|(_, entry)| entry.value.is_some());
        used.map(|(index, entry)| K::new(index, entry.generation)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Clone, Copy, Debug, PartialEq)]
    struct Id(u32, u32);

    impl Key for Id {
        fn new(index: u32, generation: u32) -> Self {
            Self(index, generation)
        }
        fn index(self) -> u32 {
            self.0
        }
        fn generation(self) -> u32 {
            self.1
        }
    }

    #[test]
    fn an_old_key_never_reaches_the_next_user_of_its_slot() {
        let mut table: Table<Id, &str> = Table::new(1);
        let old = table.insert("old").unwrap();
        assert_eq!(table.insert("no room"), Err("no room"));
        assert_eq!(table.remove(old), Some("old"));
        let new = table.insert("new").unwrap();
        assert_eq!((old.0, table.get(old)), (new.0, None));
        assert_eq!(table.remove(old), None);
        assert_eq!((table.get(new), table.len()), (Some(&"new"), 1));
    }
}
