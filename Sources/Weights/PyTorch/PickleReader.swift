import Foundation

/// Reads a pickle and runs nothing: a function that is called is looked up in a short list (`PickleCalls.swift`), and any other is refused.
///
/// No operation makes more than one value, of at most some hundred bytes, and a pickle has at most `mostOperations`. Texts and bytes are
/// no longer than the file. Source: Python's `pickletools`.
struct PickleReader {
  /// A checkpoint of 10 000 tensors has 350 000 operations.
  static let mostOperations = 4_000_000

  var pickle = Pickle()
  private var cursor: ByteCursor
  private var stack: [PickleValue] = []
  private var marks: [Int] = []
  private var memo: [UInt64: PickleValue] = [:]
  /// How many operations were performed, and how many entries were copied by calls.
  var work = 0

  private init(_ cursor: ByteCursor) { self.cursor = cursor }

  /// - Parameter cursor: where the pickle begins. It is left behind the pickle.
  static func read(_ cursor: inout ByteCursor) throws(PickleProblem) -> Pickle {
    var reader = PickleReader(cursor)
    while reader.work < mostOperations {
      reader.work += 1
      let byte = try reader.cursor.byte()
      guard let opcode = PickleOpcode(rawValue: byte) else { throw .malformed("its pickle has the unknown operation \(byte)") }
      if opcode == .stop {
        reader.pickle.root = try reader.pop()
        cursor = reader.cursor
        return reader.pickle
      }
      try reader.perform(opcode)
    }
    throw .unsupported("its pickle has more than \(mostOperations) operations")
  }

  private mutating func perform(_ opcode: PickleOpcode) throws(PickleProblem) {
    switch opcode {
    case .mark: marks.append(stack.count)
    case .pop: if stack.count > floor { stack.removeLast() } else { _ = try popMark() }
    case .popMark: _ = try popMark()
    case .duplicate: stack.append(try top())
    case .proto:
      guard try cursor.byte() <= 5 else { throw .unsupported("its pickle has a protocol that is newer than 5") }
    case .frame:
      guard try cursor.number(8) <= cursor.rest else { throw .malformed("it ends early") }
    case .float, .binFloat, .int, .binInt, .binInt1, .long, .binInt2, .none, .newTrue, .newFalse, .long1, .long4:
      stack.append(try number(opcode))
    case .string, .binString, .shortBinString, .unicode, .binUnicode, .shortBinUnicode, .binUnicode8, .binBytes, .shortBinBytes,
      .binBytes8, .byteArray8:
      stack.append(try text(opcode))
    case .emptyTuple, .tuple, .tuple1, .tuple2, .tuple3, .emptyList, .list, .emptySet, .frozenSet, .emptyDictionary, .dictionary:
      stack.append(add(try container(opcode)))
    case .append, .appends, .addItems, .setItem, .setItems: try extend(opcode)
    case .get, .binGet, .longBinGet, .put, .binPut, .longBinPut, .memoize: try remember(opcode)
    case .global, .stackGlobal, .reduce, .inst, .obj, .newObj, .newObjEx: stack.append(try named(opcode))
    case .build:
      let state = try pop()
      try build(try top(), state)
    case .binPersID:
      let identity = try items(of: pop())
      stack.append(add(.storage(try storage(identity))))
    case .persID, .ext1, .ext2, .ext4, .nextBuffer, .readOnlyBuffer:
      throw .unsupported("its pickle refers to something outside of the file")
    case .stop: break
    }
  }

  /// Keeps an object.
  mutating func add(_ object: PickleObject) -> PickleValue {
    pickle.objects.append(object)
    return .object(pickle.objects.count - 1)
  }
}

// MARK: the stack

extension PickleReader {
  /// What is below the last mark is out of reach.
  private var floor: Int { marks.last ?? 0 }

  private func top() throws(PickleProblem) -> PickleValue {
    guard stack.count > floor, let value = stack.last else { throw .malformed("its pickle takes more values than it made") }
    return value
  }

  private mutating func pop() throws(PickleProblem) -> PickleValue {
    let value = try top()
    stack.removeLast()
    return value
  }

  private mutating func pop(_ count: Int) throws(PickleProblem) -> [PickleValue] {
    guard stack.count - floor >= count else { throw .malformed("its pickle takes more values than it made") }
    defer { stack.removeLast(count) }
    return Array(stack.suffix(count))
  }

  private mutating func popMark() throws(PickleProblem) -> [PickleValue] {
    guard let mark = marks.popLast() else { throw .malformed("its pickle takes more values than it made") }
    defer { stack.removeLast(stack.count - mark) }
    return Array(stack[mark...])
  }

  private mutating func remember(_ opcode: PickleOpcode) throws(PickleProblem) {
    switch opcode {
    case .memoize: memo[UInt64(memo.count)] = try top()
    case .put: memo[try lineNumber()] = try top()
    case .binPut: memo[try cursor.number(1)] = try top()
    case .longBinPut: memo[try cursor.number(4)] = try top()
    default:
      let place = try opcode == .get ? lineNumber() : cursor.number(opcode == .binGet ? 1 : 4)
      guard let value = memo[place] else { throw .malformed("its pickle recalls a value that it did not keep") }
      stack.append(value)
    }
  }

  private mutating func lineNumber() throws(PickleProblem) -> UInt64 {
    guard let number = UInt64(String(decoding: try cursor.line(), as: UTF8.self)) else {
      throw .malformed("its pickle has no number for a place")
    }
    return number
  }
}

// MARK: numbers, text, bytes

extension PickleReader {
  private mutating func number(_ opcode: PickleOpcode) throws(PickleProblem) -> PickleValue {
    switch opcode {
    case .newTrue: return .truth(true)
    case .newFalse: return .truth(false)
    case .binInt: return .number(Int(Int32(truncatingIfNeeded: try cursor.number(4))))
    case .binInt1: return .number(Int(try cursor.byte()))
    case .binInt2: return .number(Int(truncatingIfNeeded: try cursor.number(2)))
    case .long1: return wholeNumber(try cursor.take(cursor.number(1)))
    case .long4: return wholeNumber(try cursor.take(cursor.number(4)))
    case .binFloat:
      return .float(Double(bitPattern: try cursor.number(8).byteSwapped))
    case .float:
      guard let value = Double(String(decoding: try cursor.line(), as: UTF8.self)) else {
        throw .malformed("its pickle has no number in digits")
      }
      return .float(value)
    case .int, .long:
      let digits = String(decoding: try cursor.line(), as: UTF8.self)
      if opcode == .int, digits == "00" || digits == "01" { return .truth(digits == "01") }
      let number = digits.hasSuffix("L") ? digits.dropLast() : digits[...]
      // Larger numbers than 64 bits are kept as text, as nothing computes with them.
      if let small = Int(number) { return .number(small) }
      guard number.contains(where: \.isNumber), number.drop(while: { $0 == "-" }).allSatisfy(\.isNumber) else {
        throw .malformed("its pickle has no number in digits")
      }
      return .text(String(number))
    default: return .none
    }
  }

  /// A number in two's complement, its lowest byte first. Larger ones than 64 bits stay bytes.
  private func wholeNumber(_ bytes: Data) -> PickleValue {
    guard bytes.count <= 8 else { return .bytes(bytes) }
    let sign: UInt64 = bytes.last.map { $0 >= 0x80 } == true ? .max : 0
    return .number(Int(truncatingIfNeeded: bytes.reversed().reduce(sign) { $0 << 8 | UInt64($1) }))
  }

  private mutating func text(_ opcode: PickleOpcode) throws(PickleProblem) -> PickleValue {
    switch opcode {
    case .string, .unicode:
      return .text(try unescaped(cursor.line(), isQuoted: opcode == .string))
    case .shortBinString, .binString:
      // Python 2 had no other text. What is none is bytes.
      let bytes = try cursor.take(cursor.number(opcode == .binString ? 4 : 1))
      return String(validating: bytes, as: UTF8.self).map { .text($0) } ?? .bytes(bytes)
    case .shortBinUnicode: return try text(cursor.number(1))
    case .binUnicode: return try text(cursor.number(4))
    case .binUnicode8: return try text(cursor.number(8))
    case .shortBinBytes: return .bytes(try cursor.take(cursor.number(1)))
    case .binBytes: return .bytes(try cursor.take(cursor.number(4)))
    default: return .bytes(try cursor.take(cursor.number(8)))
    }
  }

  private mutating func text(_ length: UInt64) throws(PickleProblem) -> PickleValue {
    guard let text = String(validating: try cursor.take(length), as: UTF8.self) else {
      throw .malformed("its pickle has text that is not UTF-8")
    }
    return .text(text)
  }

  /// The text of protocol 0: `\xNN` (in quotes only), `\uNNNN` and `\UNNNNNNNN`, and in quotes the usual letters behind a backslash.
  private func unescaped(_ line: Data, isQuoted: Bool) throws(PickleProblem) -> String {
    let problem = PickleProblem.malformed("its pickle has text that is not quoted as it should be")
    var rest = String(decoding: line, as: UTF8.self).unicodeScalars[...]
    if isQuoted {
      guard rest.count >= 2, let quote = rest.popFirst(), quote == "'" || quote == "\"", rest.popLast() == quote else { throw problem }
    }
    var result = String.UnicodeScalarView()
    while let scalar = rest.popFirst() {
      guard scalar == "\\" else {
        result.append(scalar)
        continue
      }
      let letter = rest.popFirst() ?? "\\"
      let digits: [Unicode.Scalar: Int] = isQuoted ? ["x": 2] : ["u": 4, "U": 8]
      if let count = digits[letter] {
        guard rest.count >= count, let code = UInt32(String(rest.prefix(count)), radix: 16), let value = Unicode.Scalar(code) else {
          throw problem
        }
        rest = rest.dropFirst(count)
        result.append(value)
      } else if isQuoted {
        let letters: [Unicode.Scalar: Unicode.Scalar] = ["n": "\n", "r": "\r", "t": "\t", "\\": "\\", "'": "'", "\"": "\""]
        guard let value = letters[letter] else { throw problem }
        result.append(value)
      } else {
        result.append(contentsOf: [scalar, letter])
      }
    }
    return String(result)
  }
}

// MARK: containers

extension PickleReader {
  private mutating func container(_ opcode: PickleOpcode) throws(PickleProblem) -> PickleObject {
    switch opcode {
    case .emptyTuple: .tuple([])
    case .tuple: .tuple(try popMark())
    case .tuple1: .tuple(try pop(1))
    case .tuple2: .tuple(try pop(2))
    case .tuple3: .tuple(try pop(3))
    case .list, .frozenSet: .list(try popMark())
    case .emptyDictionary: .dictionary([])
    case .dictionary: .dictionary(try pairs(popMark()))
    default: .list([])
    }
  }

  private mutating func extend(_ opcode: PickleOpcode) throws(PickleProblem) {
    let items =
      switch opcode {
      case .append: try pop(1)
      case .setItem: try pop(2)
      default: try popMark()
      }
    guard case .object(let place) = try top() else { throw .malformed("its pickle adds to what is no container") }
    let isDictionary = opcode == .setItem || opcode == .setItems
    let isDone =
      isDictionary ? pickle.objects[place].append(try pairs(items)) : pickle.objects[place].append(items)
    guard isDone else { throw .malformed("its pickle adds to what is no container of the kind") }
  }

  private func pairs(_ items: [PickleValue]) throws(PickleProblem) -> [(key: PickleValue, value: PickleValue)] {
    guard items.count % 2 == 0 else { throw .malformed("its pickle has a key without a value") }
    return stride(from: 0, to: items.count, by: 2).map { (items[$0], items[$0 + 1]) }
  }
}

// MARK: names

extension PickleReader {
  private mutating func named(_ opcode: PickleOpcode) throws(PickleProblem) -> PickleValue {
    switch opcode {
    case .global: return try global()
    case .stackGlobal:
      let parts = try pop(2)
      guard case .text(let module) = parts[0], case .text(let name) = parts[1] else {
        throw .malformed("its pickle has a name that is no text")
      }
      return global(module, name)
    case .inst:
      let function = try global()
      return try call(function, popMark())
    case .obj:
      let parts = try popMark()
      guard let function = parts.first else { throw .malformed("its pickle makes an object without a class") }
      return try call(function, Array(parts.dropFirst()))
    case .newObjEx:
      let parts = try pop(3)
      let names = try items(of: parts[2])
      guard names.isEmpty else { throw .unsupported("its pickle names the arguments of a call") }
      return try call(parts[0], items(of: parts[1]))
    default:
      let parts = try pop(2)
      return try call(parts[0], items(of: parts[1]))
    }
  }

  private mutating func global() throws(PickleProblem) -> PickleValue {
    let module = try cursor.line(), name = try cursor.line()
    guard let module = String(validating: module, as: UTF8.self), let name = String(validating: name, as: UTF8.self) else {
      throw .malformed("its pickle has a name that is not UTF-8")
    }
    return global(module, name)
  }

  /// Protocols 0 to 2 have the names of Python 2.
  private func global(_ module: String, _ name: String) -> PickleValue {
    .global((module == "__builtin__" ? "builtins" : module) + "." + name)
  }

  /// The contents of a tuple, a list, or an empty dictionary.
  func items(of value: PickleValue) throws(PickleProblem) -> [PickleValue] {
    if case .object(let place) = value {
      switch pickle.objects[place] {
      case .tuple(let items), .list(let items): return items
      case .dictionary(let entries) where entries.isEmpty: return []
      case .dictionary: throw .unsupported("its pickle names the arguments of a call")
      default: break
      }
    }
    throw .malformed("its pickle has something else where a tuple is needed")
  }
}
