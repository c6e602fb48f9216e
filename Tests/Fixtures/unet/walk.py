"""diffusers' UNet2DConditionModel taken apart into the layers of its way down and its way up, so that a pass can leave some out."""

import torch


def time_embedding(unet, sample, timestep):
    t = torch.tensor([timestep] * len(sample))
    return unet.time_embedding(unet.time_proj(t))


def down_layers(unet):
    """A function of (x, time, text) for each layer that leaves a skip, in order; the first is the input's convolution."""
    layers = [lambda x, time, text: unet.conv_in(x)]
    for block in unet.down_blocks:
        for i, resnet in enumerate(block.resnets):
            layers.append(step(resnet, attention(block, i)))
        for sampler in block.downsamplers or []:
            layers.append(lambda x, time, text, sampler=sampler: sampler(x))
    return layers


def up_layers(unet):
    """A function of (x, skip, time, text, size) for each layer that takes a skip, in order; `size` is that of the next skip."""
    layers = []
    for block in unet.up_blocks:
        for i, resnet in enumerate(block.resnets):
            inner = step(resnet, attention(block, i))
            sampler = block.upsamplers[0] if block.upsamplers and i == len(block.resnets) - 1 else None

            def layer(x, skip, time, text, size, inner=inner, sampler=sampler):
                x = inner(torch.cat([x, skip], dim=1), time, text)
                return sampler(x, size) if sampler else x

            layers.append(layer)
    return layers


def attention(block, i):
    return block.attentions[i] if hasattr(block, "attentions") else None


def step(resnet, attention):
    def layer(x, time, text):
        x = resnet(x, time)
        return attention(x, encoder_hidden_states=text).sample if attention is not None else x

    return layer


def middle(unet, x, time, text):
    block = unet.mid_block
    return block.resnets[1](block.attentions[0](block.resnets[0](x, time), encoder_hidden_states=text).sample, time)


def walk(unet, sample, timestep, text, branch, deep=None, controls=((), None)):
    """A pass: whole without `deep`, otherwise with it in place of all that lies below the branch. `controls` are a ControlNet's residuals of the skips
    and of the middle. Returns the output and the deep features."""
    time = time_embedding(unet, sample, timestep)
    down, up = down_layers(unet), up_layers(unet)
    x, skips = sample, []
    for layer in down if deep is None else down[: branch + 1]:
        x = layer(x, time, text)
        skips.append(x)
    for index, residual in enumerate(controls[0][: len(skips)]):
        skips[index] = skips[index] + residual
    if deep is None:
        x = middle(unet, x, time, text)
        x = x if controls[1] is None else x + controls[1]
    else:
        x = deep
    while skips:
        skip = skips.pop()
        if len(skips) == branch:
            deep = x
        x = up[len(up) - 1 - len(skips)](x, skip, time, text, skips[-1].shape[2:] if skips else None)
    return unet.conv_out(unet.conv_act(unet.conv_norm_out(x))), deep
