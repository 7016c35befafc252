"""The source of classes of torch for recurrent layers of Keras (`bridge.rules.recurrent`).

`KerasLSTM` and its like are torch's own modules with Keras' arguments; `Recurrent` goes step by step, for what these
have not. `stepped` is that of `bridge.rules.convolutional_recurrent`, too.
"""

HELPERS = {
    "merged": '''
        def merged(ways, mode):
            """What the two directions of a recurrent layer make, as one."""
            if len(ways) == 1 or mode == "concat":
                return torch.cat(ways, -1)
            if mode == "mul":
                return ways[0] * ways[1]
            return ways[0] + ways[1] if mode == "sum" else (ways[0] + ways[1]) / 2
        ''',
    "stepped": '''
        def stepped(step, x, states, mask, zero_masked):
            """Each output of a recurrent layer and its last states; x is (B, T, ...), the mask (B, T)."""
            y, made = torch.zeros_like(states[0]), []
            for t in range(x.shape[1]):
                new = step(x[:, t], states)
                if mask is None:
                    y, states = new[0], new
                else:
                    keep = mask[:, t].view(-1, *[1] * (y.ndim - 1))
                    y = torch.where(keep, new[0], torch.zeros_like(y) if zero_masked else y)
                    states = [torch.where(keep, *pair) for pair in zip(new, states)]
                made.append(y)
            return made, states
        ''',
    "Recurrent": '''
        class Recurrent(nn.Module):
            """A recurrent layer step by step, as Keras has it: with a mask, other activations, or its own dropout.

            Its weights have the names and gates of nn.LSTM, nn.GRU and nn.RNN, but for a second bias that adds nothing.
            """

            def __init__(
                self,
                cell,
                input_size,
                hidden_size,
                bias=True,
                bidirectional=False,
                sequences=True,
                merge="concat",
                activation="Tanh",
                recurrent_activation="Sigmoid",
                reset_after=True,
                zero_masked=False,
                dropout=0.0,
                recurrent_dropout=0.0,
            ):
                super().__init__()
                self.cell, self.input_size, self.hidden_size, self.bias = cell, input_size, hidden_size, bias
                self.bidirectional, self.sequences, self.merge = bidirectional, sequences, merge
                self.activation, self.recurrent_activation = activation, recurrent_activation
                self.reset_after, self.zero_masked = reset_after, zero_masked
                self.dropout, self.recurrent_dropout = dropout, recurrent_dropout
                self.functions = [getattr(nn, name)() for name in (activation, recurrent_activation)]
                self.gates = {"LSTM": 4, "GRU": 3, "RNN": 1}[cell]
                rows = self.gates * hidden_size
                shapes = {"weight_ih": (rows, input_size), "weight_hh": (rows, hidden_size)}
                shapes |= {"bias_ih": (rows,)} if bias else {}
                shapes |= {"bias_hh": (rows,)} if bias and cell == "GRU" and reset_after else {}
                for way in ("l0", "l0_reverse")[: 1 + bidirectional]:
                    for name, shape in shapes.items():
                        weight = torch.empty(shape).uniform_(-1, 1) / hidden_size**0.5
                        self.register_parameter(f"{name}_{way}", nn.Parameter(weight))

            def forward(self, x, states=(), mask=None):
                """(B, T, I), states of (B, H), the mask (B, T) -> the output and each last state."""
                ways, each = 1 + self.bidirectional, 2 if self.cell == "LSTM" else 1
                count = self.gates if self.recurrent_dropout else 1  # masks of dropout: one for all gates, or for each
                inputs = self.kept(x, self.dropout, ways, count, self.input_size)
                memory = self.kept(x, self.recurrent_dropout, ways, self.gates, self.hidden_size)
                states = states or [x.new_zeros(len(x), self.hidden_size)] * (each * ways)
                made, last = [], []
                for i, way in enumerate(("l0", "l0_reverse")[:ways]):
                    given = states[i * each : (i + 1) * each]
                    turned = [t.flip(1) if i and t is not None else t for t in (x, mask)]
                    y, given = self.run(*turned, given, way, inputs[i], memory[i])
                    made.append(y.flip(1) if i and self.sequences else y)
                    last += given
                return (merged(made, self.merge), *last)

            def kept(self, x, rate, ways, count, size):
                """What dropout leaves, the same at all steps."""
                if not rate:
                    return [None] * ways
                return F.dropout(x.new_ones(ways, len(x), count, size), rate, self.training)

            def run(self, x, mask, states, way, inputs, memory):
                """One direction, from the first step to the last."""
                names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
                weight, recurrent, bias, second = (getattr(self, f"{name}_{way}", None) for name in names)
                recurrent = recurrent.unflatten(0, (self.gates, -1))
                if inputs is None:
                    x = F.linear(x, weight).unflatten(-1, (self.gates, -1))
                else:
                    x = (x[:, :, None] * inputs[:, None]).expand(-1, -1, self.gates, -1)
                    x = torch.einsum("btgi,goi->btgo", x, weight.unflatten(0, (self.gates, -1)))
                x = x if bias is None else x + bias.view(self.gates, -1)
                second = None if second is None else second.view(self.gates, -1)

                def step(x, states):
                    return self.step(x, states, recurrent, second, memory)

                made, states = stepped(step, x, states, mask, self.zero_masked)
                return torch.stack(made, 1) if self.sequences else made[-1], states

            def step(self, x, states, weight, bias, memory):
                """One step: x is (B, gates, H), what the gates have of the input."""
                act, gate = self.functions
                h = states[0][:, None].expand(-1, self.gates, -1)
                h = h if memory is None else h * memory
                before = self.cell == "GRU" and not self.reset_after  # its last gate reads what the first has left
                many = 2 if before else self.gates
                m = torch.einsum("bgi,goi->bgo", h[:, :many], weight[:many])
                m = m if bias is None else m + bias
                if self.cell == "RNN":
                    return [act(x[:, 0] + m[:, 0])]
                if self.cell == "LSTM":
                    i, f, g, o = (x + m).unbind(1)
                    c = gate(f) * states[1] + gate(i) * act(g)
                    return [gate(o) * act(c), c]
                r, z = gate(x[:, 0] + m[:, 0]), gate(x[:, 1] + m[:, 1])
                n = act(x[:, 2] + (F.linear(r * h[:, 2], weight[2]) if before else r * m[:, 2]))
                return [z * states[0] + (1 - z) * n]
        ''',
} | {
    f"Keras{kind}": f'''
        class Keras{kind}(nn.{kind}):
            """nn.{kind} with what goes in and comes out of a Keras layer: x, states of (B, H) -> the output, states."""

            def __init__(
                self, input_size, hidden_size, {more}bias=True, bidirectional=False, sequences=True, merge="concat"
            ):
                options = {{"bias": bias, "batch_first": True, "bidirectional": bidirectional{given}}}
                super().__init__(input_size, hidden_size, **options)
                self.sequences, self.merge = sequences, merge

            def forward(self, x, states=()):
                given = {pack} if states else None
                y, {last} = super().forward(x, given)
                ways = y.chunk(1 + self.bidirectional, -1) if self.sequences else h.unbind()
                return (merged(ways, self.merge), {out})
        '''
    for kind, more, given, pack, last, out in (
        (
            "LSTM",
            "",
            "",
            "(torch.stack(states[::2]), torch.stack(states[1::2]))",
            "(h, c)",
            "*(s for pair in zip(h, c) for s in pair)",
        ),
        ("GRU", "", "", "torch.stack(states)", "h", "*h"),
        ("RNN", 'nonlinearity="tanh", ', ', "nonlinearity": nonlinearity', "torch.stack(states)", "h", "*h"),
    )
}
