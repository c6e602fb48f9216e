import Foundation
import LatentDiffusion

/// A request of the webui's interface, `txt2img` or `img2img`.
///
/// Its clients send every field, most of them as they always are. Those are understood; a field that asks for something else that this server does not do is
/// an error, so that no picture is another one than was asked for.
struct WebUIRequest: Sendable {
  private(set) var picture: PictureRequest
  private(set) var files = RequestFiles()
  /// Whether the pictures go into the gallery, and into the answer.
  private(set) var saves = false
  private(set) var sends = true
  private(set) var batchSize = 1
  private(set) var warnings: [String] = []
  /// What the client sent, without its pictures.
  let parameters: JSONValue

  /// - Throws: `ServerError`.
  init(
    _ given: RequestFields, fromPicture: Bool, _ options: WebUIOptions.Current, _ limits: ServerLimits, _ shelf: ModelShelf
  ) async throws(ServerError) {
    var fields = given
    var current = options
    if let changes = try fields.object("override_settings") { current = try current.changed(by: changes, shelf) }
    picture = PictureRequest(
      prompt: try fields.text("prompt", most: limits.promptCharacters) ?? "", model: current.model,
      seed: try fields.seed("seed") ?? .random(in: 0...UInt64(UInt32.max)))
    (picture.profile, picture.clipSkip, picture.previewCount) = (.webui, current.clipSkip, 9)
    picture.negativePrompt = try fields.text("negative_prompt", most: limits.promptCharacters) ?? ""
    (picture.width, picture.height) = (try fields.integer("width", in: 1...limits.side), try fields.integer("height", in: 1...limits.side))
    picture.steps = try fields.integer("steps", in: 1...limits.steps)
    picture.guidance = try fields.number("cfg_scale", in: 0...1000)
    batchSize = try fields.integer("batch_size", in: 1...limits.count) ?? 1
    let rounds = try fields.integer("n_iter", in: 1...limits.count) ?? 1
    guard batchSize * rounds <= limits.count else {
      throw .field("n_iter", "\(batchSize) × \(rounds) pictures are too many; ask for at most \(limits.count).")
    }
    picture.count = batchSize * rounds
    saves = try fields.flag("save_images") ?? false
    sends = try fields.flag("send_images") ?? true
    parameters = given.withoutPictures
    try takeSampler(&fields)
    let strength = try fields.number("denoising_strength", in: 0...1)
    if fromPicture {
      picture.strength = strength ?? 0.75
      try takePictures(&fields)
    }
    try refuseOthers(&fields)
    for name in fields.left { warnings.append("\(name) is not known here and changes nothing.") }
    try checkTags(shelf)
    try picture.check(limits, shelf)
    try checkPainted(await files.check(limits), limits)
  }

  // MARK: - How

  private mutating func takeSampler(_ fields: inout RequestFields) throws(ServerError) {
    let sampler = try fields.text("sampler_name", most: 100)
    let older = try fields.text("sampler_index", most: 100)
    let schedule = try fields.text("scheduler", most: 100)
    // Without a sampler, the model's own scheduler is used.
    if let name = sampler ?? older, !name.isEmpty { picture.scheduler = try WebUISampler.named(name, schedule: schedule) }
    picture.eta = try fields.number("eta", in: 0...1)
    let amount = try fields.number("s_churn", in: 0...1e4) ?? 0, most = try fields.number("s_tmax", in: 0...1e10) ?? 0
    let least = try fields.number("s_tmin", in: 0...1e10) ?? 0, noise = try fields.number("s_noise", in: 0...10) ?? 1
    // In the webui, 0 means that there is no upper limit.
    if amount > 0 { picture.churn = .init(amount: amount, minimum: least, maximum: most == 0 ? nil : most, noise: noise) }
  }

  private mutating func takePictures(_ fields: inout RequestFields) throws(ServerError) {
    let images = try fields.list("init_images", most: 16) ?? []
    guard images.count == 1, case .text(let image) = images[0] else {
      throw .field("init_images", "init_images must be a list of one picture in base64; there are \(images.count).")
    }
    files.image = try RequestFields.bytes(of: image, "init_images[0]")
    files.mask = try fields.file("mask")
    (picture.hasImage, picture.hasMask) = (true, files.mask != nil)
    let modes = [ResizeMode.stretch, .crop, .fill]
    picture.resizeMode = modes[try fields.integer("resize_mode", in: 0...2) ?? 0]
    picture.imageGuidance = try fields.number("image_cfg_scale", in: 0...100)
    let (painting, fill) = try Self.painting(&fields)
    let roundsMask = try fields.flag("mask_round") ?? true
    guard picture.hasMask else { return }
    guard fill < 2 else {
      throw .field("inpainting_fill", "inpainting_fill must be 0 or 1: what is below the mask is neither noise nor nothing here.")
    }
    guard roundsMask else { throw .field("mask_round", "mask_round must be true: latents are either painted anew or kept.") }
    picture.painting = painting
  }

  /// How the mask is used, and with what it is filled. What is left out is as in the webui.
  private static func painting(_ fields: inout RequestFields) throws(ServerError) -> (MaskPainting, fill: Int) {
    var painting = MaskPainting()
    painting.isInverted = try fields.integer("inpainting_mask_invert", in: 0...1) == 1
    let both = try fields.number("mask_blur", in: 0...64)
    let x = try fields.number("mask_blur_x", in: 0...64), y = try fields.number("mask_blur_y", in: 0...64)
    (painting.blurX, painting.blurY) = (both ?? x ?? 4, both ?? y ?? 4)
    let fill = try fields.integer("inpainting_fill", in: 0...3) ?? 0
    painting.fills = fill == 0
    let padding = try fields.integer("inpaint_full_res_padding", in: 0...256) ?? 0
    if try fields.flag("inpaint_full_res") ?? true { painting.padding = padding }
    return (painting, fill)
  }

  /// Without a size the picture is prepared at its own, which takes its time.
  private func checkPainted(_ sent: (width: Int, height: Int)?, _ limits: ServerLimits) throws(ServerError) {
    guard picture.painting != nil, picture.width == nil || picture.height == nil, let sent, sent.width * sent.height > limits.pixels else {
      return
    }
    throw .field("width", "A picture of \(sent.width)×\(sent.height) with a mask is too large to be drawn; send width and height.")
  }

  /// Tags of LoRAs are found now, so that a wrong one does not wait for its turn.
  private func checkTags(_ shelf: ModelShelf) throws(ServerError) {
    let tags: [LoraTag]
    do {
      tags = try LoraTag.taken(from: picture.prompt).tags
    } catch {
      throw .field("prompt", "\(error)")
    }
    guard tags.count <= 16 else { throw .field("prompt", "The prompt names \(tags.count) LoRAs; name at most 16.") }
    for tag in tags { _ = try shelf.lora(tag.name, field: "prompt") }
    guard !picture.negativePrompt.contains(LoraTag.start) else {
      throw .field("negative_prompt", "A LoRA changes the model for all prompts; put it in prompt, with a weight below 0 to avoid it.")
    }
  }

  // MARK: - What this server does not do

  private mutating func refuseOthers(_ fields: inout RequestFields) throws(ServerError) {
    for (name, sentence) in Self.refusedFlags where try fields.flag(name) == true { throw .field(name, sentence) }
    for name in ["subseed_strength", "seed_resize_from_h", "seed_resize_from_w"] where try fields.number(name, in: -1...1e6) ?? 0 > 0 {
      throw .field(name, "\(name) must be 0: there are no variations of seeds here.")
    }
    if try fields.number("initial_noise_multiplier", in: 0...10) ?? 1 != 1 {
      throw .field("initial_noise_multiplier", "initial_noise_multiplier must be 1: the noise is the seed's.")
    }
    if try fields.number("s_min_uncond", in: 0...1e6) ?? 0 > 0 {
      throw .field("s_min_uncond", "s_min_uncond must be 0: every step is guided.")
    }
    for name in ["script_name", "latent_mask", "refiner_checkpoint", "infotext", "hr_checkpoint_name"]
    where try fields.text(name) ?? "" != "" {
      throw .field(name, "\(name) must be empty: this server does not have it.")
    }
    for name in ["styles", "script_args"] where try fields.list(name, most: 1000) ?? [] != [] {
      throw .field(name, "\(name) must be empty: this server has none.")
    }
    if let scripts = try fields.object("alwayson_scripts"), let name = scripts.left.first {
      throw .field(name, "\(name.prefix(100)) is a script that this server does not have.")
    }
    // These only matter beside features that were refused above, or to files that this server does not write.
    for name in Self.idle { _ = fields.value(name) }
  }

  private static let refusedFlags = [
    ("enable_hr", "enable_hr must be false: draw at the first size, and then larger with img2img."),
    ("restore_faces", "restore_faces must be false: this server has no model for it."),
    ("tiling", "tiling must be false: pictures have edges here."),
    ("disable_extra_networks", "disable_extra_networks must be false: leave the LoRAs out of the prompt."),
    ("include_init_images", "include_init_images must be false: the pictures are the client's own."),
  ]
  private static let idle = [
    "subseed", "do_not_save_samples", "do_not_save_grid", "override_settings_restore_afterwards", "hr_scale", "hr_upscaler",
    "hr_second_pass_steps", "hr_resize_x", "hr_resize_y", "hr_sampler_name", "hr_scheduler", "hr_prompt", "hr_negative_prompt",
    "firstphase_width", "firstphase_height", "refiner_switch_at", "comments", "force_task_id",
  ]
}

extension RequestFields {
  /// What was sent, with pictures left out.
  var withoutPictures: JSONValue {
    .object(sent.filter { !["init_images", "mask", "image"].contains($0.key) })
  }
}
