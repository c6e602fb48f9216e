/// The operations of a pickle. Source: Python's `pickletools`, protocols 0 to 5.
enum PickleOpcode: UInt8 {
  // The stack.
  case mark = 0x28, stop = 0x2E, pop = 0x30, popMark = 0x31, duplicate = 0x32, proto = 0x80, frame = 0x95
  // Numbers and truth values.
  case float = 0x46, binFloat = 0x47, int = 0x49, binInt = 0x4A, binInt1 = 0x4B, long = 0x4C, binInt2 = 0x4D, none = 0x4E
  case newTrue = 0x88, newFalse = 0x89, long1 = 0x8A, long4 = 0x8B
  // Text and bytes.
  case string = 0x53, binString = 0x54, shortBinString = 0x55, unicode = 0x56, binUnicode = 0x58, shortBinUnicode = 0x8C, binUnicode8 = 0x8D
  case binBytes = 0x42, shortBinBytes = 0x43, binBytes8 = 0x8E, byteArray8 = 0x96
  // Containers.
  case emptyTuple = 0x29, tuple = 0x74, tuple1 = 0x85, tuple2 = 0x86, tuple3 = 0x87
  case emptyList = 0x5D, list = 0x6C, append = 0x61, appends = 0x65, emptySet = 0x8F, addItems = 0x90, frozenSet = 0x91
  case emptyDictionary = 0x7D, dictionary = 0x64, setItem = 0x73, setItems = 0x75
  // The memo.
  case get = 0x67, binGet = 0x68, longBinGet = 0x6A, put = 0x70, binPut = 0x71, longBinPut = 0x72, memoize = 0x94
  // Names, and what calls them.
  case global = 0x63, stackGlobal = 0x93, reduce = 0x52, build = 0x62, inst = 0x69, obj = 0x6F, newObj = 0x81, newObjEx = 0x92
  case binPersID = 0x51
  // What `torch.save` has no use for.
  case persID = 0x50, ext1 = 0x82, ext2 = 0x83, ext4 = 0x84, nextBuffer = 0x97, readOnlyBuffer = 0x98
}
