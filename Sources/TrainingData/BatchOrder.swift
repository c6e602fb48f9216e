import LatentDiffusionComponents
import LatentDiffusionFiles
import Tensor

/// In which order pictures are seen: batch after batch without an end, each of pictures of one size.
///
/// In each epoch every picture is seen once. The order of an epoch is that of PyTorch's `DistributedSampler`: `randperm` of a generator that is seeded with
/// the seed plus the number of the epoch. In this order pictures join others of their size, and as soon as a batch is full, it is next; what did not fill a
/// batch comes at the end of the epoch, as smaller batches. Where pictures are cut and whether they are mirrored, the same generator draws after that, for
/// one picture after the other. So the batches follow from the data and the seed alone.
public struct BatchOrder: Sendable {
  /// What is seen.
  public let pictures: [CaptionedPicture]
  /// How pictures get their sizes.
  public let framing: PictureFraming
  /// Pictures of a batch, at most.
  public let batchSize: Int
  /// Decides what is random.
  public let seed: UInt64
  /// Batches until each picture was seen once.
  public let batchesPerEpoch: Int
  /// Of everything that the order follows from, the pixels and captions too.
  public let content: ContentHash

  /// The most pictures of a batch.
  public static let largestBatch = 1 << 16

  /// - Parameters:
  ///   - pictures: at least one.
  ///   - framing: how they get their sizes.
  ///   - batchSize: pictures of a batch.
  ///   - seed: decides what is random.
  /// - Throws: `TrainingDataError.outOfRange` for no picture, or a batch of none.
  public init(_ pictures: [CaptionedPicture], framing: PictureFraming, batchSize: Int, seed: UInt64) throws(TrainingDataError) {
    guard (1..<1 << 27).contains(pictures.count) else {
      throw .outOfRange(setting: "The number of pictures", value: "\(pictures.count)", allowed: "from 1 to \(1 << 27 - 1)")
    }
    guard (1...Self.largestBatch).contains(batchSize) else {
      throw .outOfRange(setting: "The size of a batch", value: "\(batchSize)", allowed: "from 1 to \(Self.largestBatch)")
    }
    (self.pictures, self.framing, self.batchSize, self.seed) = (pictures, framing, batchSize, seed)
    let counts = Dictionary(pictures.map { (framing.buckets.nearest(to: $0.size), 1) }, uniquingKeysWith: +)
    batchesPerEpoch = counts.values.reduce(0) { $0 + ($1 + batchSize - 1) / batchSize }
    content = Self.content(pictures, framing: framing, batchSize: batchSize, seed: seed)
  }

  private static func content(_ pictures: [CaptionedPicture], framing: PictureFraming, batchSize: Int, seed: UInt64) -> ContentHash {
    var hash = ContentHash()
    for picture in pictures {
      hash.add(picture.content)
      hash.add(picture.caption)
    }
    for size in framing.buckets.sizes {
      hash.add(size.width)
      hash.add(size.height)
    }
    hash.add(framing.crop.rawValue)
    for number in [framing.flips ? 1 : 0, batchSize, Int(truncatingIfNeeded: seed)] { hash.add(number) }
    return hash
  }

  /// All batches from a place on.
  ///
  /// - Parameters:
  ///   - place: where a run was that goes on; nil: from the beginning.
  ///   - share: which of several machines this is, that take turns.
  /// - Throws: `TrainingDataError.otherOrder` for a place of other data, sizes, batches or seed; `outOfRange` for a share that is none.
  public func batches(from place: BatchPlace? = nil, share: BatchShare = .all) throws(TrainingDataError) -> Batches {
    guard place.map({ $0.order == content && (0..<1 << 56).contains($0.batch) }) ?? true else { throw .otherOrder }
    guard (1...1 << 20).contains(share.count), (0..<share.count).contains(share.index) else {
      throw .outOfRange(setting: "A share", value: "\(share.index) of \(share.count)", allowed: "one from 0 on, below their number")
    }
    return Batches(order: self, place: place ?? BatchPlace(batch: 0, order: content), share: share)
  }

  /// Every picture in every frame that it can get, so that all can be encoded before.
  /// - Throws: `TrainingDataError.randomCrops`.
  public func framedPictures() throws(TrainingDataError) -> [FramedPicture] {
    var framed: [FramedPicture] = []
    for picture in pictures { framed += try framing.frames(picture.size).map { FramedPicture(picture: picture, frame: $0) } }
    return framed
  }

  /// Pictures that have fewer pixels than they are trained in, on one side at least, so that they are enlarged.
  public var enlarged: [CaptionedPicture] {
    pictures.filter { picture in
      let size = framing.buckets.nearest(to: picture.size)
      return size.width > picture.size.width || size.height > picture.size.height
    }
  }

  /// The batches of an epoch.
  func epoch(_ number: Int) -> [[FramedPicture]] {
    var generator = TorchGenerator(seed: seed &+ UInt64(truncatingIfNeeded: number))
    let permutation = generator.permutation(pictures.count)
    let framed = pictures.map { picture in
      FramedPicture(picture: picture, frame: framing.frame(picture.size) { (Int(generator.nextUInt32()) * $0) >> 32 })
    }
    var full: [[FramedPicture]] = []
    var open: [PixelSize: [FramedPicture]] = [:]
    for index in permutation {
      let picture = framed[index]
      open[picture.frame.size, default: []].append(picture)
      if let batch = open[picture.frame.size], batch.count == batchSize {
        full.append(batch)
        open[picture.frame.size] = nil
      }
    }
    return full + framing.buckets.sizes.compactMap { open[$0] }
  }

  /// Batches without an end. A value: a copy goes on from the same place.
  public struct Batches: Sequence, IteratorProtocol, Sendable {
    private let order: BatchOrder
    private let share: BatchShare
    private var epoch: (number: Int, batches: [[FramedPicture]])?
    /// Before the next batch. With shares, it is the same in all of them.
    public private(set) var place: BatchPlace

    fileprivate init(order: BatchOrder, place: BatchPlace, share: BatchShare) {
      (self.order, self.place, self.share) = (order, place, share)
    }

    /// The next batch; there always is one.
    public mutating func next() -> TrainingBatch? {
      let number = place.batch + share.index
      place.batch += share.count
      return batch(number)
    }

    /// Any batch, whatever the place and the share are.
    ///
    /// - Parameter number: from 0 on, through all epochs.
    /// - Precondition: it is not below 0.
    public mutating func batch(_ number: Int) -> TrainingBatch {
      let (epoch, index) = number.quotientAndRemainder(dividingBy: order.batchesPerEpoch)
      // Batches come one after the other as a rule, so an epoch is laid out once.
      let batches = self.epoch.flatMap { $0.number == epoch ? $0.batches : nil } ?? order.epoch(epoch)
      self.epoch = (epoch, batches)
      return TrainingBatch(number: number, epoch: epoch, pictures: batches[index])
    }
  }
}

/// Which of several machines takes which batches: the one of index i takes every `count`-th from the i-th on.
public struct BatchShare: Sendable, Hashable {
  /// From 0 on.
  public let index: Int
  /// How many there are.
  public let count: Int

  /// One of several.
  public init(index: Int, count: Int) { (self.index, self.count) = (index, count) }

  /// All batches, on one machine.
  public static let all = BatchShare(index: 0, count: 1)
}

/// A place in an order of batches, which a run keeps so that it can go on.
public struct BatchPlace: Sendable, Hashable, Codable {
  /// The number of the next batch, from 0 on, through all epochs.
  public fileprivate(set) var batch: Int
  /// What the order follows from.
  public let order: ContentHash
}

/// Pictures of one size that are seen together.
public struct TrainingBatch: Sendable {
  /// From 0 on, through all epochs.
  public let number: Int
  /// From 0 on.
  public let epoch: Int
  /// At least one.
  public let pictures: [FramedPicture]

  /// Of all pictures.
  public var size: PixelSize { pictures[0].frame.size }
  /// Of each picture.
  public var captions: [String] { pictures.map(\.picture.caption) }
  /// What models of the kind of SDXL are told of each picture.
  public var sizes: [SizeConditioning] { pictures.map(\.sizes) }

  /// The pictures, read now, each on a thread.
  ///
  /// - Returns: `[N, height, width, 3]`, -1…1.
  /// - Throws: `TrainingDataError.changed`, and `CancellationError`.
  public func images(in context: ExecutionContext) throws -> Tensor {
    Tensor.concatenated(try context.apart(pictures.count) { index, _ in try pictures[index].tensor() }, axis: 0)
  }
}

extension TorchGenerator {
  /// `torch.randperm(count)`. Source: `randperm_cpu` of PyTorch, which exchanges each place with a random one from there on.
  mutating func permutation(_ count: Int) -> [Int] {
    var order = Array(0..<count)
    for index in order.indices.dropLast() { order.swapAt(index, index + Int(nextUInt32()) % (count - index)) }
    return order
  }
}
