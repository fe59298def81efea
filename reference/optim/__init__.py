"""The update of the parameters, the learning rate over the steps, and clipping."""
