"""Mean-field variational Bayes without a network: q(z) = prod_j q_j(z_j), fitted by coordinates or by gradients.

    ln p(x) = ELBO(q) + KL(q || p(z|x)),      ELBO(q) = E_q[ln p(x, z) - ln q(z)]

`gaussian`, `linear_regression`, `mixture` and `logistic_regression` go up coordinate by coordinate, where the ELBO
never decreases; `advi` follows gradients of any log density. What they are held against is exact where that exists,
and `hmc` where it does not; `targets` has densities whose best mean field is known in closed form, `contours` draws
them.
"""
