"""The shape of one transformer and where its weights start: all that models.py, families.py and hf.py need to know."""

import dataclasses
from dataclasses import dataclass
from typing import Literal

from rmo.config.identity import memory


@dataclass(frozen=True)
class Model:
    """Shape of one transformer trunk, and the checkpoint that its weights start from, if any."""

    checkpoint: str = ""
    """Hugging Face checkpoint to start from: a directory, or owner/name[@revision] of the hub; empty: random weights.
    The other fields must say its shape; `rmo.checkpoints.hf.shape_of(name)` writes them."""
    vocab: int = 0
    """V, rows of the embedding; 0: the world's tokens."""
    length: int = 0
    """Tokens that the model can take; 0: prompt and response of the world."""
    reads: Literal["ids", "text", "chat"] = "ids"
    """How an RM meets a text: the policy's token ids as they are; or, where it has a tokenizer of its own, prompt and
    response as text, plain or through its chat template."""
    pooling: Literal["last", "unnormed", "sum", "mean"] = "last"
    """How an RM's values, one per token, become a score: that of the last token, with or without the norm before the
    head; their sum over prompt and response, over the root of the longest sequence; or their mean. The norm bounds a
    value, and so the score at the last token, at little above what ordinary text has where width is small. A sum pays
    for length, and a mean does too once a response is better than its prompt; PPO then fills the room."""
    width: int = 64
    """D, the width of the residual stream."""
    layers: int = 2
    """L, the number of blocks."""
    heads: int = 4
    """H, the number of query heads; must divide width unless head is given."""
    kv_heads: int = 0
    """Hkv, the number of key/value heads (grouped queries); 0 means as many as heads."""
    head: int = 0
    """K, the width of one head; 0 means width / heads."""
    mlp: int = 4
    """Hidden width of the MLP as a multiple of width."""
    hidden: int = 0
    """F, the hidden width itself, for models where it is no whole multiple; 0 means mlp * width."""
    activation: Literal["gelu", "gelu_exact", "relu", "silu"] = "gelu"
    """Of the MLP; gelu is the tanh approximation; relu is far cheaper than gelu on a CPU."""
    gated: bool = False
    """Whether the activation multiplies a second projection (SwiGLU, GeGLU)."""
    norm: Literal["rms", "rms_offset", "layer"] = "rms"
    """rms_offset multiplies by 1 + scale (Gemma); layer subtracts the mean and has a bias."""
    norm_eps: float = 1e-6
    post_norm: bool = False
    """Whether the outputs of attention and MLP are normalised too (Gemma)."""
    qk_norm: bool = False
    """Whether queries and keys are normalised, head by head (Qwen3)."""
    parallel: bool = False
    """Whether attention and MLP read the same input (GPT-NeoX) or one after the other."""
    bias: Literal["none", "qkv", "attention", "all"] = "none"
    """Which projections have a bias: query, key and value; the attention's output too; the MLP's too."""
    tied: bool = True
    """Whether the unembedding is the embedding."""
    embed_scale: bool = False
    """Whether embeddings are multiplied by the root of width (Gemma)."""
    positions: Literal["rotary", "learned"] = "rotary"
    """How token order enters."""
    rotary_base: float = 10_000.0
    """Wavelengths reach 2 pi times this."""
    rotary_share: float = 1.0
    """Share of each head that is rotated; the rest does not know its position (GPT-NeoX)."""
    rotary_scaling: tuple[float, ...] = ()
    """Llama 3's stretch of long wavelengths: factor, low and high frequency factor, original context; empty: none."""
    query_scale: float = 0.0
    """Attention scores are divided by the root of this; 0 means K."""
    attention_cap: float = 0.0
    """Scores s become cap * tanh(s / cap) (Gemma); 0: no cap."""
    logit_cap: float = 0.0
    """The same of logits."""
    window: int = 0
    """Tokens that every second layer, from the first, sees (Gemma); 0: all."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Type of the activations; reductions stay float32, and so do parameters that are trained."""
    remat: Literal["none", "dots", "full"] = memory("none")
    """What the backward pass computes again, block by block: nothing; all but the projections; everything."""

    @property
    def shape(self) -> "Model":
        """Without what is not shape: equal for models whose parameters fit each other's place."""
        return dataclasses.replace(self, checkpoint="", reads="ids", pooling="last", dtype="float32", remat="none")

    @property
    def trunk(self) -> "Model":
        """Without what only concerns an RM's score."""
        return dataclasses.replace(self, pooling="last")

    @property
    def head_width(self) -> int:
        """K."""
        return self.head or self.width // self.heads

    @property
    def rotary_width(self) -> int:
        """How much of a head is rotated."""
        return int(self.head_width * self.rotary_share)

    @property
    def hidden_width(self) -> int:
        """F."""
        return self.hidden or self.mlp * self.width

    @property
    def weights(self) -> int:
        """Parameters of the projections inside the blocks: two sizes must differ here, norms and biases aside."""
        attention = 2 * self.head_width * (self.heads + (self.kv_heads or self.heads))
        return self.layers * self.width * (attention + (3 if self.gated else 2) * self.hidden_width)
